"""The limits on what somebody outside can name or send."""
