"""The ledger: its records, their encoding, and the coverage."""
