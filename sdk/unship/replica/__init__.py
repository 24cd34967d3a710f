"""What obeys commands: the fence, its file, and the thread that follows `control`."""
