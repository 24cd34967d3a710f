"""Follow the topic `alerts` for each sink of alerts, at its own position."""
