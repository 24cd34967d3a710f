"""The ledger: its records, their encoding, and what of them was applied."""
