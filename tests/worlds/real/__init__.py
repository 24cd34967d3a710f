"""Replay real data of public sources, whose right answer is known in parts."""
