"""What operators touch: the command line, explanations and the demo."""
