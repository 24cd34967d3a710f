"""Losses that users write themselves: pure functions over columns, known by name and by the digest of their source.

A driver imports them when it reads the configuration and puts them in here; nothing is ever imported because a
recording names it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from detectors.base import Floats
from streams.losses.columns import LossSpec, Pairs
from unship.errors import ConfigurationError

#: Takes outputs, truths and scores, and returns as many numbers from 0 to 1.
OwnLoss = Callable[[Sequence[Any], Sequence[Any], Sequence[float | None]], Any]
#: (name, SHA-256 of the source) -> the function.
OWN_LOSSES: dict[tuple[str, str], OwnLoss] = {}


def own_loss(pairs: Pairs, spec: LossSpec) -> Floats:
    """Return what the user's function says; NaN where that is no number from 0 to 1, and everywhere if it raises.

    Raises:
        ConfigurationError: if the function was not loaded, or not with this source.

    >>> OWN_LOSSES["pkg.mod:fn", "ab"] = lambda outputs, truths, scores: [0.5, 7]
    >>> own_loss(Pairs([1, 2], [None] * 2, [None] * 2, [3, 4]), LossSpec("pkg.mod:fn", source="ab"))
    array([0.5, nan])
    """
    function = OWN_LOSSES.get((spec.name, str(spec.source)))
    if function is None:
        raise ConfigurationError(
            f"loss {spec.name} with the source {str(spec.source)[:12]} is not loaded; "
            "name it in the losses of the configuration, and use the source that the recording was made with"
        )
    nothing = np.full(len(pairs.truths), np.nan)
    try:
        # Copies, because what the function does to its arguments must not reach another loss.
        found = np.array(function(list(pairs.outputs), list(pairs.truths), list(pairs.scores)), np.float64)
    except Exception:  # noqa: BLE001
        # It is the user's code: whatever it raises, the other losses go on, and each outcome is counted as unusable.
        return nothing
    if found.shape != nothing.shape:
        return nothing
    return np.where((found >= 0) & (found <= 1), found, np.nan)
