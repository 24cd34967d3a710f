"""Logs: the protocol that fleets and label sources need, and its two kinds."""
