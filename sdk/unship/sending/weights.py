"""Weigh events before they are queued: about how much memory they hold, and whether any log could take them.

A queue that counts events is bounded only as far as each of them is. Nearly all are small and alike, and recognising
that has to cost next to nothing; only what is longer is weighed piece by piece.
"""

from __future__ import annotations

from sys import getsizeof
from typing import Any, Final

from unship.codec import LIMITS
from unship.events import INTEGER_MAX, NAME_CHARS_MAX, Feedback, Prediction

EVENT_BYTES: Final = 1_024
"""Memory of an event whose values are short: its fields, an id, a few slices and scores."""

SCALAR_BYTES: Final = 32
"""Memory of a number, and of its place in a list or an object."""

KEY_BYTES: Final = 64
"""Memory of an entry of an object without the characters of its name."""

SHORT_SLICES: Final = 4
FEW_SCORES: Final = 8
"""More slices or scores than that are weighed."""

_TEXT: Final = frozenset((str,))
_NUMBERS: Final = frozenset((bool, float, type(None)))


class Weight:
    """Add up what the parts of an event hold, and the fewest bytes that they take as JSON."""

    __slots__ = ("held", "wire")

    def __init__(self) -> None:
        self.held = 0
        self.wire = 0

    @property
    def too_large(self) -> bool:
        """Return whether every decoder would refuse the event for its size, however it is encoded."""
        return self.wire > LIMITS.max_bytes

    def add(self, value: Any) -> None:
        """Add a value and what is in it; what is too large by then is not looked at any further."""
        kind = value.__class__
        if kind is str:
            self.held += getsizeof(value)
            self.wire += len(value)
        elif kind is dict:
            self.held += getsizeof(value) + KEY_BYTES * len(value)
            self.wire += 3 * len(value)
            self._add_names(value)
            self._add_each(value.values())
        elif kind is list or kind is tuple:
            self.held += getsizeof(value)
            self._add_each(value)
        else:
            # A number, an integer of any length, or an object that the encoder will refuse.
            self.held += SCALAR_BYTES if kind in _NUMBERS else getsizeof(value)
            self.wire += 1

    def _add_names(self, names: Any) -> None:
        if _TEXT.issuperset(map(type, names)):
            chars = sum(map(len, names))
            self.held += chars
            self.wire += chars
        else:
            self._add_each(names)

    def _add_each(self, values: Any) -> None:
        if _NUMBERS.issuperset(map(type, values)):
            self.held += SCALAR_BYTES * len(values)
            self.wire += 2 * len(values)
            return
        for each in values:
            if self.too_large:
                return
            self.wire += 1
            self.add(each)


def weighed(event: Any) -> Weight | None:
    """Return the weight of an event, None if it is a common one, of about `EVENT_BYTES`.

    Example:
        >>> weighed(Prediction(id="p-1", model="fraud", version="v42", output=1, slices={"country": "DE"}))
        >>> weighed(Prediction(id="p-1", model="fraud", version="v42", output="x" * 1_000_000)).too_large
        True
    """
    kind = event.__class__
    if kind is Prediction:
        id, target, slices, scores = event.id, event.target, event.slices, event.scores
        if (
            id.__class__ is str
            and len(id) <= NAME_CHARS_MAX
            and (not target or _is_short(target))
            and _is_short(event.output)
            and (not slices or _are_short(slices))
            and (scores is None or _are_few(scores))
        ):
            return None
    elif kind is Feedback and _is_short(event.truth) and _is_short(event.id) and _is_short(event.source):
        return None
    weight = Weight()
    for name in event.__struct_fields__:
        weight.add(getattr(event, name))
    return weight


def _is_short(value: Any) -> bool:
    kind = value.__class__
    if kind is int:
        return bool(-INTEGER_MAX <= value <= INTEGER_MAX)
    return kind in _NUMBERS or (kind is str and len(value) <= NAME_CHARS_MAX)


def _are_short(slices: Any) -> bool:
    if slices.__class__ is not dict or len(slices) > SHORT_SLICES:
        return False
    for name, value in slices.items():
        if name.__class__ is not str or len(name) > NAME_CHARS_MAX:
            return False
        if value.__class__ is str:
            if len(value) > NAME_CHARS_MAX:
                return False
        elif not _is_short(value):
            return False
    return True


def _are_few(scores: Any) -> bool:
    return (
        scores.__class__ is dict
        and len(scores) <= FEW_SCORES
        and _NUMBERS.issuperset(map(type, scores.values()))
        and _TEXT.issuperset(map(type, scores))
        and sum(map(len, scores)) <= NAME_CHARS_MAX
    )
