"""Worlds of teams as they are in the field: their traffic, their labels, and when these come."""
