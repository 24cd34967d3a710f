"""Send what was decided to the systems of people; nothing here can hold up the monitor."""
