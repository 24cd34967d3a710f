"""Hold the input of a loss: columns of answers and truths, and the loss's name and bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from unship.events import Scalar


class LossSpec(msgspec.Struct, frozen=True):
    """Name a loss, with its bound if it needs one, and with the digest of its source if it is the user's own."""

    name: str
    bound: float = 1.0
    # Unset is not encoded, so the losses of this package are recorded without it.
    code_digest: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="source")

    @property
    def binary(self) -> bool:
        """Return whether the loss is always 0 or 1."""
        return self.name in ("zero_one", "latency") or self.partial

    @property
    def partial(self) -> bool:
        """Return whether the loss is defined on some of the outcomes only, so that most of a column may be NaN."""
        return self.name in ("precision", "recall")

    @property
    def of_engagement(self) -> bool:
        """Return whether the loss needs no truth, only how much the answer was used."""
        return self.name == "engagement"

    @property
    def of_latency(self) -> bool:
        """Return whether the loss needs no label, only how long the answer took."""
        return self.name == "latency"

    @property
    def of_scores(self) -> bool:
        """Return whether the loss judges stated probabilities instead of the answer."""
        return self.name in ("brier", "log")


class JoinedColumns(msgspec.Struct, frozen=True):
    """Hold columns of joined pairs, each of the same length: answers and truths.

    `engagements` and `latencies` are only read where a loss is of them.
    """

    outputs: Sequence[Any]
    scores: Sequence[float | None]
    class_scores: Sequence[dict[str, float] | None]
    truths: Sequence[Any]
    engagements: Sequence[float | None] = ()
    latencies: Sequence[float | None] = ()


def class_of(value: Any) -> Scalar | None:
    """Return the class of an answer or a truth in a binary target, None for a value that is no class."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return int(value >= 0.5) if 0 <= value <= 1 else value
    return None


def class_name(value: Scalar) -> str:
    """Return the name by which classes are compared, so that `3`, `3.0` and `"3"` are one class."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
