"""Prepare events for the wire: replace foreign values, and recognise cheaply what reads back as it was meant."""

from __future__ import annotations

import math
import sys
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from unship.codec import with_short_texts
from unship.events import (
    INTEGER_MAX,
    NAME_CHARS_MAX,
    ROW_MAX,
    SLICE_NAME_CHARS_MAX,
    SLICES_MAX,
    TEXT_CHARS_MAX,
    TS_MS_MAX,
    Deployment,
    Feedback,
    Prediction,
)

Sendable: TypeAlias = Prediction | Feedback | Deployment
"""What fleets and label sources send."""

PLAIN: Final = frozenset((bool, int, float, str))
_ANSWERS: Final = frozenset(("output", "truth"))
LARGEST: Final = sys.float_info.max


def plain(value: Any) -> Any:
    """Return what JSON can carry: numpy's values as Python's own, sequences as new lists, a UUID as text.

    Example:
        >>> plain(("a", "b")), plain(0.5)
        (['a', 'b'], 0.5)
    """
    if value.__class__ in PLAIN:
        return value
    convert = getattr(value, "tolist", None)
    if convert is not None:
        return convert()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, UUID) else value


def with_plain_fields(event: Sendable) -> Sendable:
    """Return the event with the values of numpy and pandas replaced, in its fields and in the objects among them.

    Long answers are cut as the monitor cuts them. Classes of a classifier become text where they are keys. In the
    slices, what pandas makes of a gap (None, NaN) is left out, and a whole number that it keeps as a float is an
    integer again.
    """
    fields = msgspec.structs.asdict(event)
    for name, value in fields.items():
        if isinstance(value, dict):
            objects = {_key(key): plain(each) for key, each in value.items()}
            fields[name] = _slices(objects) if name == "slices" else objects
        elif name != "epoch":
            fields[name] = with_short_texts(plain(value)) if name in _ANSWERS else plain(value)
    return msgspec.structs.replace(event, **fields)


def _key(key: Any) -> Any:
    key = plain(key)
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key) if isinstance(key, int | float | str) else key


def _slices(slices: dict[Any, Any]) -> dict[Any, Any]:
    return {name: _whole(value) for name, value in slices.items() if not _is_gap(value)}


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def changed_fields(event: Sendable, read: Any) -> str:
    """Return the names of the fields that differ between an event and what was read from its bytes, for a message."""
    fields = msgspec.structs.asdict(event)
    return ", ".join(name for name, value in fields.items() if getattr(read, name, None) != value)


def reads_back(event: Any, like: Any = None) -> bool:
    """Return whether the codec certainly reads the equal event from this one's bytes, if these are not too many.

    False means that only decoding can show it. Strings that UTF-8 cannot carry are left to the encoder, which raises.

    Args:
        event: A prediction, feedback or deployment with anything at all in its fields.
        like: A prediction that was decoded and found equal. What names the replica and what it serves are the same
            objects from one prediction to the next, and need no other check than that.

    Example:
        >>> first = Prediction(id="p-1", model="fraud", version="v42", output=1, ts=0)
        >>> second = Prediction(id="p-2", model=first.model, version=first.version, output=float("nan"), ts=0)
        >>> reads_back(first, like=first), reads_back(second, like=first)
        (True, False)
    """
    if type(event) is Prediction:
        return (
            type(like) is Prediction
            and event.model is like.model
            and event.version is like.version
            and event.role is like.role
            and event.replica is like.replica
            and event.epoch is like.epoch
            and event.artifact is like.artifact
            and event.scores is None
            and _is_common(event.id, event.row, event.target, event.ts, event.at)
            and _is_scalar(event.output)
            and (event.score is None or _is_within(event.score, 1.0))
            and (event.latency_ms is None or _is_within(event.latency_ms, LARGEST))
            and (not event.slices or _are_slices(event.slices))
        )
    return (
        type(event) is Feedback
        and _is_common(event.id, event.row, event.target, event.ts, event.at)
        and (event.model is None or (_is_label(event.model) and event.model != ""))
        and _is_label(event.source)
        and (event.engagement is None or _is_within(event.engagement, 1.0))
        and (event.engagement is not None if event.truth is None else _is_scalar(event.truth))
    )


def _is_common(id: Any, row: Any, target: Any, ts: Any, at: Any) -> bool:
    return (
        type(id) is str
        and 0 < len(id) <= NAME_CHARS_MAX
        and type(row) is int
        and 0 <= row <= ROW_MAX
        and _is_label(target)
        and type(ts) is int
        and 0 <= ts <= TS_MS_MAX
        and at is None
    )


def _is_label(value: Any) -> bool:
    return type(value) is str and len(value) <= NAME_CHARS_MAX


def _is_within(value: Any, largest: float) -> bool:
    return type(value) is float and 0.0 <= value <= largest


def _is_scalar(value: Any) -> bool:
    if type(value) is int:
        return -INTEGER_MAX <= value <= INTEGER_MAX
    if type(value) is float:
        return -LARGEST <= value <= LARGEST
    return type(value) is bool or (type(value) is str and len(value) <= TEXT_CHARS_MAX)


def _are_slices(slices: Any) -> bool:
    if type(slices) is not dict or len(slices) > SLICES_MAX:
        return False
    for name, value in slices.items():
        if type(name) is not str or len(name) > SLICE_NAME_CHARS_MAX:
            return False
        if type(value) is str:
            if len(value) > NAME_CHARS_MAX:
                return False
        elif type(value) is int:
            if not -INTEGER_MAX <= value <= INTEGER_MAX:
                return False
        elif type(value) is not bool:
            return False
    return True
