"""The data plane: sources are joined into outcomes, cut into a ledger and folded into decisions. Start at
`streams.pipeline`."""
