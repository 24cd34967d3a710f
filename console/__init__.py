"""The command line, explanations and the demo: the interface for operators."""
