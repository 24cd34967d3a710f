"""The window: what predictions and labels wait for each other in."""
