"""The bridge for replicas in other languages: HTTP next to the server, and commands for shells."""
