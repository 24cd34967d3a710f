"""Replicas: the fence, its file, and the thread that follows `control` and applies commands."""
