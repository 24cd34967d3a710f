"""The operating system: files that are replaced as a whole, forked children, signals."""
