"""River's detectors under our protocol; only this package imports river."""
