"""Stage three: closed cohorts become findings."""
