"""Honest requests for as long as wanted: what grows, and what does not."""
