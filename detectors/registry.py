"""Name the detectors: a closed table, so that a configuration can be checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectors.base import Detector
from detectors.snapshots import unseal
from unship.errors import SnapshotError


def _e_detector() -> type[Detector]:
    from detectors.e_detector import EDetector

    return EDetector


def _adwin() -> type[Detector]:
    from detectors.river.adwin_page_hinkley import Adwin

    return Adwin


def _page_hinkley() -> type[Detector]:
    from detectors.river.adwin_page_hinkley import PageHinkley

    return PageHinkley


def _ddm() -> type[Detector]:
    from detectors.river.ddm_eddm import Ddm

    return Ddm


def _eddm() -> type[Detector]:
    from detectors.river.ddm_eddm import Eddm

    return Eddm


def _fhddm() -> type[Detector]:
    from detectors.river.fhddm_kswin import Fhddm

    return Fhddm


def _hddm_a() -> type[Detector]:
    from detectors.river.hddm import HddmA

    return HddmA


def _hddm_w() -> type[Detector]:
    from detectors.river.hddm import HddmW

    return HddmW


def _kswin() -> type[Detector]:
    from detectors.river.fhddm_kswin import Kswin

    return Kswin


def _cusum() -> type[Detector]:
    from detectors.cusum import Cusum

    return Cusum


# Each entry imports its detector when it is asked for: river takes time to import, and the names are needed to check a
# configuration long before.
TABLE: dict[str, Callable[[], type[Detector]]] = {
    "e_detector": _e_detector,
    "adwin": _adwin,
    "page_hinkley": _page_hinkley,
    "ddm": _ddm,
    "eddm": _eddm,
    "fhddm": _fhddm,
    "hddm_a": _hddm_a,
    "hddm_w": _hddm_w,
    "kswin": _kswin,
    "cusum": _cusum,
}


def names() -> tuple[str, ...]:
    """Return the names that ``create`` knows.

    Example:
        >>> names()[:3], names()[3:8], names()[8:]
        (('e_detector', 'adwin', 'page_hinkley'), ('ddm', 'eddm', 'fhddm', 'hddm_a', 'hddm_w'), ('kswin', 'cusum'))
    """
    return tuple(TABLE)


def create(name: str, **parameters: Any) -> Detector:
    """Return a new detector.

    Args:
        name: One of ``names()``.
        parameters: The detector's own; river's detectors keep river's names.

    Raises:
        ValueError: There is no such detector, or a parameter is out of range.
        TypeError: The detector has no such parameter.

    Example:
        >>> import numpy as np
        >>> detector = create("e_detector", arl=10_000, reference=(0.1, 5_000))
        >>> losses = np.random.default_rng(7).random(3_000) < np.repeat([0.1, 0.2], [2_000, 1_000])
        >>> int(detector.update_many(losses)[0])
        2074
    """
    if name not in TABLE:
        raise ValueError(f"unknown detector {name!r}, expected one of {', '.join(TABLE)}")
    return TABLE[name]()(**parameters)


def restore(data: bytes) -> Detector:
    """Return the detector that wrote a snapshot; it continues bit for bit.

    Raises:
        SnapshotError: The bytes are damaged, cut short, foreign, or of a detector that is not in the table.

    Example:
        >>> detector = create("page_hinkley", threshold=20.0)
        >>> detector.update_many([0.0, 1.0, 1.0]).size
        0
        >>> restore(detector.snapshot()).snapshot() == detector.snapshot()
        True
    """
    envelope = unseal(data)
    if envelope.name not in TABLE:
        raise SnapshotError(f"snapshot of unknown detector {envelope.name!r}, expected one of {', '.join(TABLE)}")
    return TABLE[envelope.name]().restored(envelope.payload)
