"""The bridge for replicas in other languages: HTTP beside the server, and commands for shells."""
