"""The join: the step from events to outcomes."""
