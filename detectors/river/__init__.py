"""Adapt river's detectors to the protocol of `detectors.base`; only this package imports river."""
