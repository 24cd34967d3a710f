"""Define the protocol of every detector, and check losses at its entrance.

A detector sees one stream of losses in [0, 1] (0 is right, 1 is wrong) and alarms when the mean loss has *risen*.
An improvement is never an alarm: a monitor that rolls back on one would take back the better model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
Positions: TypeAlias = NDArray[np.intp]

LossKind: TypeAlias = Literal["binary", "unit"]
"""The losses that a detector accepts: only 0 and 1, or any number in [0, 1]."""


class Detector(Protocol):
    """Watch one stream of losses and alarm when it gets worse."""

    name: ClassVar[str]
    accepts: ClassVar[LossKind]

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        ...

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms, exactly as a loop of ``update`` would."""
        ...

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        ...

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector whose snapshot held ``payload``; raise SnapshotError if it is not one of this kind."""
        ...


def checked_losses(losses: ArrayLike) -> Floats:
    """Return losses as a float64 vector.

    Raises:
        ValueError: The array is not one-dimensional, or a loss is NaN or outside [0, 1]; names position and value.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected losses in one dimension, was shape {values.shape}")
    # Two reductions are cheaper than a mask, and NaN fails both comparisons.
    if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):
        position = int(np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))[0])
        raise ValueError(f"expected a loss in [0, 1], was {values[position]!s} at position {position}")
    return values


def checked_loss(x: float) -> float:
    """Return one loss as a float.

    Raises:
        ValueError: The loss is NaN or outside [0, 1].
    """
    value = float(x)
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"expected a loss in [0, 1], was {value} at position 0")
    return value


def positions(found: Sequence[int]) -> Positions:
    """Return alarm positions as the integer array that ``update_many`` promises."""
    return np.array(found, dtype=np.intp)


def checked_bits(losses: ArrayLike) -> list[int]:
    """Return losses that may only be 0 or 1.

    Raises:
        ValueError: As ``checked_losses``, and for a loss between 0 and 1; names position and value.

    Example:
        >>> checked_bits([False, 1.0])
        [0, 1]
    """
    values = checked_losses(losses)
    between = np.flatnonzero((values != 0.0) & (values != 1.0))
    if between.size:
        position = int(between[0])
        raise ValueError(f"expected a loss of 0 or 1, was {values[position]!s} at position {position}")
    bits: list[int] = values.astype(np.int64).tolist()
    return bits


def checked_bit(x: float) -> int:
    """Return one loss that may only be 0 or 1.

    Raises:
        ValueError: The loss is anything else.
    """
    value = checked_loss(x)
    if value not in (0.0, 1.0):
        raise ValueError(f"expected a loss of 0 or 1, was {value} at position 0")
    return int(value)


def rounded(value: float) -> float:
    """Return a number at 9 significant digits, as it is compared and written: its last bits differ between processors.

    Example:
        >>> rounded(1.23456789012)
        1.23456789
    """
    return float(f"{value:.8e}")
