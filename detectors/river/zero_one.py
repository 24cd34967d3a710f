"""Adapt detectors that take losses of 0 and 1."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import ArrayLike

from detectors.base import LossKind, Positions, checked_bit, checked_bits, positions


class ZeroOneAdapter:
    """Feed one of river's detectors with errors (1) and right answers (0), one after the other."""

    accepts: ClassVar[LossKind] = "binary"

    _river: Any

    def update(self, x: float) -> bool:
        """Take one loss, 0 or 1; return whether it raises the alarm."""
        return bool(self._alarms([checked_bit(x)]))

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses, each 0 or 1, in order; return the positions of the alarms inside this batch."""
        return positions(self._alarms(checked_bits(losses)))

    def _alarms(self, bits: list[int]) -> list[int]:
        river, update, alarms = self._river, self._river.update, []
        for position, bit in enumerate(bits):
            update(bit)
            # The private field saves a property call per loss.
            if river._drift_detected and self._rose():
                alarms.append(position)
        return alarms

    def _rose(self) -> bool:
        """Return whether the change that was just found is a rise; most of these detectors find no other."""
        return True


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless ``low < value < high``; NaN is not between anything."""
    if not low < value < high:
        raise ValueError(f"expected {name} between {low:g} and {high:g}, was {value}")


def check_count(name: str, value: int, least: int, most: int) -> None:
    """Raise ValueError unless ``value`` is a whole number in ``[least, most]``."""
    if not (least <= value <= most and value == int(value)):
        raise ValueError(f"expected {name} to be a whole number between {least} and {most}, was {value}")
