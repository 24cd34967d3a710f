"""Compute losses that users write themselves: pure functions over columns, named with the digest of their source.

A driver imports them when it reads the configuration and registers them here; a name in a recording never causes an
import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from detectors.base import Floats
from streams.losses.columns import JoinedColumns, LossSpec
from unship.errors import ConfigurationError

OwnLoss: TypeAlias = Callable[[Sequence[Any], Sequence[Any], Sequence[float | None]], Any]
"""Takes outputs, truths and scores, and returns as many numbers from 0 to 1."""

OWN_LOSSES: dict[tuple[str, str], OwnLoss] = {}
"""The registered functions by (name, SHA-256 of the source)."""


def own_loss(pairs: JoinedColumns, spec: LossSpec) -> Floats:
    """Return the losses by the user's function; NaN for each that is no number from 0 to 1, and for all if it raises.

    Raises:
        ConfigurationError: The function was not loaded, or not with this source.

    Example:
        >>> OWN_LOSSES["pkg.mod:fn", "ab"] = lambda outputs, truths, scores: [0.5, 7]
        >>> own_loss(JoinedColumns([1, 2], [None] * 2, [None] * 2, [3, 4]), LossSpec("pkg.mod:fn", code_digest="ab"))
        array([0.5, nan])
    """
    function = OWN_LOSSES.get((spec.name, str(spec.code_digest)))
    if function is None:
        raise ConfigurationError(
            f"loss {spec.name} with the source {str(spec.code_digest)[:12]} is not loaded; "
            "name it in the losses of the configuration, and use the source that the recording was made with"
        )
    nothing = np.full(len(pairs.truths), np.nan)
    try:
        # Copies, because a function that changes its arguments must not change another loss.
        found = np.array(function(list(pairs.outputs), list(pairs.truths), list(pairs.scores)), np.float64)
    except Exception:  # noqa: BLE001
        # User code may raise anything: the other losses are still computed, and each outcome is counted as unusable.
        return nothing
    if found.shape != nothing.shape:
        return nothing
    return np.where((found >= 0) & (found <= 1), found, np.nan)
