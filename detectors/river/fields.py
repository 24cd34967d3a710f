"""Save and put back the fields of river's objects: numbers, weighted means, windows and a generator.

river has no interface for that, so the paths that detectors pass to these functions name its private fields. They are
restored from typed records, into an object that was just made. No pickle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from river.drift.binary.hddm_w import SampleInfo


@dataclass(frozen=True, slots=True)
class Field:
    """Describe a field of a river object: its path there, its schema in a snapshot, and the way there and back."""

    path: str
    schema: Any
    saved: Callable[[Any], Any]
    """Takes the field's value; returns what a snapshot holds."""
    fill: Callable[[Any, Any], None] | None = None
    """Puts that into a new value, or raises ValueError; None where it is the value."""

    def save(self, river: Any) -> Any:
        """Return what a snapshot of the river object holds of the field."""
        return self.saved(attrgetter(self.path)(river))

    def put_back(self, river: Any, content: Any) -> None:
        """Set the field of a new river object to what a snapshot held."""
        if self.fill is not None:
            return self.fill(attrgetter(self.path)(river), content)
        owner, _, attribute = self.path.rpartition(".")
        setattr(attrgetter(owner)(river) if owner else river, attribute, content)
        return None


def plain(path: str, kind: Any = float) -> Field:
    """Return a field that is a number or a truth value; river starts some floats as integers."""
    return Field(path, kind, kind)


def optional(path: str) -> Field:
    """Return a field that is a float, or None at the start."""
    return Field(path, float | None, lambda value: value)


class WeightedMeanOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold an exponentially weighted mean, and the sum of squared weights that bounds it; mean None before any."""

    mean: float | None
    squared_weights: float


def weighted_mean(path: str) -> Field:
    """Return a field that is one of HDDM_W's weighted means."""
    return Field(
        path,
        WeightedMeanOf,
        lambda sample: WeightedMeanOf(sample.ewma if sample.is_init else None, sample.ibc),
        _fill_weighted_mean,
    )


def _fill_weighted_mean(sample: SampleInfo, content: WeightedMeanOf) -> None:
    if not 0.0 < content.squared_weights <= 1.0:
        raise ValueError(f"expected a sum of squared weights in (0, 1], was {content.squared_weights}")
    if content.mean is not None:
        # A new weighted mean takes its first number unchanged as the mean.
        sample.update(content.mean)  # type: ignore[no-untyped-call]
    sample._ibc = content.squared_weights


def bits(path: str) -> Field:
    """Return a field that is a window of zeros and ones, one byte each."""
    return Field(path, bytes, bytes, _fill_window)


def losses(path: str) -> Field:
    """Return a field that is a window of losses."""
    return Field(path, list[float], list, _fill_window)


def _fill_window(window: deque[float], content: bytes | list[float]) -> None:
    if window.maxlen is not None and len(content) > window.maxlen:
        raise ValueError(f"{len(content)} losses in a window of {window.maxlen}")
    window.clear()
    window.extend(content)


def generator(path: str) -> Field:
    """Return a field that is Python's generator: its 624 words and the position among them, 32 bits each."""
    return Field(path, bytes, lambda rng: np.array(rng.getstate()[1], dtype="<u4").tobytes(), _fill_generator)


def _fill_generator(rng: Any, content: bytes) -> None:
    version, _, pending = rng.getstate()
    rng.setstate((version, tuple(np.frombuffer(content, dtype="<u4").tolist()), pending))


def compiled_window(path: str) -> Field:
    """Return a field that is ADWIN's window: compiled code, whose own serialisation is bytes of numbers."""
    return Field(path, bytes, lambda window: window.__getstate__(), _fill_compiled_window)


_PARAMETER_BYTES = 12
"""The head of the serialised window: delta as a double, clock as 32 bits."""


def _fill_compiled_window(window: Any, content: bytes) -> None:
    # The compiled code panics on bytes that end early or start with other parameters than its own, so both are
    # checked first: a new window's serialisation begins and ends with the parameters.
    fresh = window.__getstate__()
    if len(content) < len(fresh) or content[:_PARAMETER_BYTES] != fresh[:_PARAMETER_BYTES]:
        raise ValueError(f"expected a window of at least {len(fresh)} bytes, was {len(content)}")
    try:
        window.__setstate__(content)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"expected a window of river's ADWIN: {error}") from None
    if window.__getstate__() != content:
        raise ValueError("expected a window of river's ADWIN, but it is not equal after it was restored")
