"""Worlds in which an earlier version answers a share of the units, as commanded."""
