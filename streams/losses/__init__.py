"""Compute losses: how wrong an answer was, in [0, 1]."""
