"""Answer with v42: boosted trees trained by `examples/census/train_v42.py`, walked with numpy alone.

The trees live in `model_v42.json` as plain arrays, so that the demo needs no learning library and anyone can read what
v42 does. Survey codes are integers, hence every split is "code <= threshold" with an integer threshold and the walk is
exact; the only rounding is in the logistic function, and four decimals of its result are kept, as v41's answers have.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np
from numpy.typing import NDArray

from console.census.rows import FEATURES


class Tree(msgspec.Struct, frozen=True):
    """List a tree's nodes, the root first; a leaf is its own child on both sides.

    `value` is the leaf's contribution to the log-odds; `depth` is the number of splits on the longest path.
    """

    feature: list[int]
    threshold: list[int]
    left: list[int]
    right: list[int]
    value: list[float]
    depth: int


class OfflineMetric(msgspec.Struct, frozen=True):
    """State the mean of a loss over `n` rows that training did not see."""

    mean: float
    n: int


class TreeModel(msgspec.Struct, frozen=True):
    """Hold the model file: names of the features, log-odds before any tree, the trees and the offline metrics."""

    features: list[str]
    trained_rows: tuple[int, int]
    tested_rows: tuple[int, int]
    offline: dict[str, OfflineMetric]
    base: float
    trees: list[Tree]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Pair the model with `artifact`, the digest of its file ("sha256:" and 64 hexadecimal digits)."""

    model: TreeModel
    artifact: str


@cache
def load_v42() -> LoadedModel:
    """Read v42 from the package.

    Example:
        >>> load_v42().artifact.startswith("sha256:"), len(load_v42().model.trees)
        (True, 60)
    """
    data = files(__package__).joinpath("model_v42.json").read_bytes()
    model = msgspec.json.decode(data, type=TreeModel)
    if tuple(model.features) != FEATURES:
        raise ValueError(f"expected the features {FEATURES}, was {tuple(model.features)}")
    return LoadedModel(model, f"sha256:{hashlib.sha256(data).hexdigest()}")


def probability_of_work(model: TreeModel, features: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the probability that each person is at work.

    Args:
        features: Survey codes as the model receives them, (16, n).

    Returns:
        Probabilities in [0, 1], (n,), rounded to four decimals.
    """
    log_odds = np.full(features.shape[1], model.base)
    for tree in model.trees:
        log_odds += _leaf_values(tree, features)
    probability: NDArray[np.float64] = np.round(1.0 / (1.0 + np.exp(-log_odds)), 4)
    return probability


def _leaf_values(tree: Tree, features: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Walk all rows down one tree, one level at a time."""
    count = features.shape[1]
    codes = features.ravel()
    # Both arrays are indexed by node: where a feature's codes start, and both children side by side.
    start = np.array(tree.feature, dtype=np.intp) * count
    threshold = np.array(tree.threshold, dtype=np.int16)
    children = np.array([tree.left, tree.right], dtype=np.intp).T.ravel()
    column = np.arange(count, dtype=np.intp)
    node = np.zeros(count, dtype=np.intp)
    for _ in range(tree.depth):
        goes_right = codes[start[node] + column] > threshold[node]
        node = children[2 * node + goes_right]
    leaf_value: NDArray[np.float64] = np.array(tree.value)[node]
    return leaf_value
