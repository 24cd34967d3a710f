"""The monitor's web: metrics, health, status and verdicts over HTTP, read-only."""
