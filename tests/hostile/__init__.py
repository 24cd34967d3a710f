"""Records that nobody should send, and what they must not change: that the monitor goes on, and what it decides."""
