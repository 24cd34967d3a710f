"""The audit: everything is computed again and compared."""
