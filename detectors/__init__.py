"""Detect that a bounded loss has risen: create a detector by name, feed it losses, keep and restore it.

Example:
    >>> import detectors
    >>> detector = detectors.create("e_detector", arl=10_000, reference=(0.1, 5_000))
    >>> detector.update(0.0)
    False
"""

from __future__ import annotations

from detectors.base import Detector
from detectors.registry import create, names, restore

__all__ = ["Detector", "create", "names", "restore"]
