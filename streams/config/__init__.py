"""The configuration: its sections, what they resolve to, and how a file is read."""
