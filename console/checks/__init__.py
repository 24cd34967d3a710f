"""What `unship check` looks at."""
