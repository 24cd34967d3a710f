"""Recordings: their lines, and how they are written, read and replayed."""
