"""The audit: decisions and rows are computed again and compared."""
