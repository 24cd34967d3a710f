"""The checks of `unship check`."""
