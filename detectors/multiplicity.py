"""Share one promise among many streams, and name those that alarmed.

A weighted mean of e-detectors is an e-detector, whatever the dependence between the streams: alarming when the
weighted mean of the evidences reaches the promise keeps the promise for all of them together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from detectors.base import Bools


def stream_weights(losses: int, slice_cap: int) -> tuple[float, float]:
    """Return the weight of each overall stream and of each slice's stream.

    Half of the weight is shared by the overall streams (one per loss), half by ``slice_cap * losses`` slice streams,
    whether or not that many slices have appeared: a weight that changed with the data would break the promise.

    Args:
        losses: Number of losses, at least 1.
        slice_cap: Most slices of a model; 0 when none are configured, and the overall streams share everything.

    Example:
        >>> stream_weights(2, 50)
        (0.25, 0.005)
        >>> stream_weights(2, 0)
        (0.5, 0.0)
    """
    if losses < 1 or slice_cap < 0:
        raise ValueError(f"expected at least 1 loss and slice_cap of at least 0, was {losses} and {slice_cap}")
    if slice_cap == 0:
        return 1.0 / losses, 0.0
    return 0.5 / losses, 0.5 / (slice_cap * losses)


def e_d_bh(evidence: ArrayLike, streams: int, alpha: float = 0.05) -> Bools:
    """Return which streams have changed: the e-detector form of Benjamini and Hochberg's procedure [^1].

    With evidences sorted from the largest, k* is the largest k whose k-th evidence is at least
    ``streams / (alpha k)``; the k* largest are named. The false discovery proportion, counted per outcome of patience,
    stays below alpha under any dependence.

    Args:
        evidence: Shape (s,), the current evidence of the streams that exist.
        streams: Number of streams that could exist, at least s.
        alpha: Level in (0, 1).

    Returns:
        Shape (s,).

    [^1]: Dandapanthula, Ramdas. "Multiple testing in multi-stream sequential change detection", arXiv 2501.04130,
        definition of e-d-BH.

    Example:
        >>> e_d_bh([5_000.0, 10.0, 900.0], streams=50).tolist()
        [True, False, True]
    """
    values = np.asarray(evidence, dtype=np.float64)
    if values.ndim != 1 or values.size > streams:
        raise ValueError(f"expected at most {streams} evidences in one dimension, was shape {values.shape}")
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"expected alpha between 0 and 1, was {alpha}")
    named: Bools = np.zeros(values.size, dtype=np.bool_)
    order = np.argsort(-values, kind="stable")
    enough = np.flatnonzero(values[order] >= streams / (alpha * np.arange(1.0, values.size + 1.0)))
    if enough.size:
        named[order[: enough[-1] + 1]] = True
    return named
