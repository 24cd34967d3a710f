"""Rows of detectors over arrays: one row per stream of losses; no event, no configuration."""
