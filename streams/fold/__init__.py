"""Stages two and four: ledger records become decisions."""
