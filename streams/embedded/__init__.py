"""The monitor of one machine, on the embedded log."""
