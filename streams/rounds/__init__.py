"""What a partition has to do next: pure functions of what its service knows and of the time."""
