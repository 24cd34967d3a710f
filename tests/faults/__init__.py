"""Faults on a real cluster of three brokers, and a soak of random ones. They take minutes, so only `make faults` runs
them: `python -m tests.faults`."""
