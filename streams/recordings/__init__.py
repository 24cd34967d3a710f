"""Files of lines: their format, writing, reading and replaying them."""
