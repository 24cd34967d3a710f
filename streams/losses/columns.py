"""What a loss is computed from: columns of answers and truths, and what a loss needs."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Truths = NDArray[np.bool_]


Scalar = bool | int | float | str


class LossSpec(msgspec.Struct, frozen=True):
    """A loss by name, with its bound where it needs one, and the digest of its source where it is the user's own."""

    name: str
    bound: float = 1.0
    # Unset is not written at all, so the losses that come with the program are recorded without it.
    source: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def binary(self) -> bool:
        """Whether the loss is only ever 0 or 1."""
        return self.name in ("zero_one", "latency") or self.partial

    @property
    def partial(self) -> bool:
        """Whether the loss is about some of the outcomes only, so that most of a column may be NaN by intent."""
        return self.name in ("precision", "recall")

    @property
    def of_engagement(self) -> bool:
        """Whether the loss needs no truth, only how much the answer was used."""
        return self.name == "engagement"

    @property
    def of_latency(self) -> bool:
        """Whether the loss needs no label at all, only how long the answer took."""
        return self.name == "latency"

    @property
    def of_scores(self) -> bool:
        """Whether the loss judges stated probabilities instead of the answer."""
        return self.name in ("brier", "log")


class Pairs(msgspec.Struct, frozen=True):
    """Columns of joined pairs, each of the same length: what was answered and what was true.

    `engagements` and `latencies` are only read where a loss is of them.
    """

    outputs: Sequence[Any]
    scores: Sequence[float | None]
    class_scores: Sequence[dict[str, float] | None]
    truths: Sequence[Any]
    engagements: Sequence[float | None] = ()
    latencies: Sequence[float | None] = ()


def class_of(value: Any) -> Scalar | None:
    """Return the class an answer or a truth stands for in a binary target, None for what is no class."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return int(value >= 0.5) if 0 <= value <= 1 else value
    return None


def class_name(value: Scalar) -> str:
    """Classes are compared by name, so that `3`, `3.0` and `"3"` are one class."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
