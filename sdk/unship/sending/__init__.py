"""What is done to events before they are queued: foreign values replaced, sizes weighed."""
