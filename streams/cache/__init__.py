"""What a worker keeps on its own disk and can do without: files that are made again from the log."""
