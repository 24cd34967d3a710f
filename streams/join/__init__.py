"""Stage one: events become outcomes."""
