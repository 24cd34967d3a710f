"""The seam to a log: what a fleet and a source of labels need of it, and the two kinds there are."""
