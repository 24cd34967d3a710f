"""Read the configuration: its sections, their resolved form, and the file."""
