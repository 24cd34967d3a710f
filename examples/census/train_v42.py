"""Train v42, the release that the recordings watch, on the survey of 2015 and write it as plain arrays.

    python examples/census/train_v42.py console/census/model_v42.json

scikit-learn is needed here and nowhere else. Rows 0 to 40,000 train; rows 40,000 to 50,000 give the offline metrics
that v42's deployment states. Another version of scikit-learn may choose other splits: the file in the repository was
written with 1.9 and is what the tests describe.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier

from console.census.rows import FEATURES, load_rows
from console.census.trees import OfflineMetric, Tree, TreeModel, probability_of_work

TRAINED = (0, 40_000)
TESTED = (40_000, 50_000)
TREES = 60
LEAVES = 16
SEED = 20_260_105


def main(target: Path) -> None:
    """Train, check that the exported arrays answer as scikit-learn does, and write the model file."""
    train, test = load_rows().take((TRAINED,)), load_rows().take((TESTED,))
    learner = GradientBoostingClassifier(
        n_estimators=TREES,
        max_leaf_nodes=LEAVES,
        max_depth=None,
        learning_rate=0.15,
        min_samples_leaf=40,
        random_state=SEED,
    )
    learner.fit(train.features.T, train.truth)
    prior = float(train.truth.mean())
    unmeasured = TreeModel(
        features=list(FEATURES),
        trained_rows=TRAINED,
        tested_rows=TESTED,
        offline={},
        base=float(np.log(prior / (1.0 - prior))),
        trees=[_exported(column[0].tree_, learner.learning_rate) for column in learner.estimators_],
    )
    probability = probability_of_work(unmeasured, test.features)
    difference = float(np.abs(probability - learner.predict_proba(test.features.T)[:, 1]).max())
    assert difference < 1e-4, f"the exported trees differ from the learner by {difference}"

    model = msgspec.structs.replace(unmeasured, offline=_offline(probability, test.truth))
    target.write_bytes(msgspec.json.encode(model) + b"\n")
    v41 = float((test.prediction != test.truth).mean())
    print(f"{target.stat().st_size:,} bytes; held-out error: v42 {model.offline['zero_one'].mean}, v41 {v41:.4f}")


def _offline(probability: NDArray[np.float64], truth: NDArray[np.uint8]) -> dict[str, OfflineMetric]:
    """Measure both losses on rows that training did not see."""
    wrong = (probability >= 0.5) != (truth == 1)
    squared = (probability - truth) ** 2
    return {
        "zero_one": OfflineMetric(round(float(wrong.mean()), 6), len(truth)),
        "brier": OfflineMetric(round(float(squared.mean()), 6), len(truth)),
    }


def _exported(tree: object, learning_rate: float) -> Tree:
    """Turn one tree of scikit-learn into our arrays; a leaf (child -1) becomes its own child."""
    left, right = tree.children_left, tree.children_right  # type: ignore[attr-defined]
    own = np.arange(len(left))
    leaf = left < 0
    return Tree(
        feature=np.where(leaf, 0, tree.feature).tolist(),  # type: ignore[attr-defined]
        # Codes are integers: "<= 14.5" is "<= 14".
        threshold=np.where(leaf, 0, np.floor(tree.threshold)).astype(int).tolist(),  # type: ignore[attr-defined]
        left=np.where(leaf, own, left).tolist(),
        right=np.where(leaf, own, right).tolist(),
        value=[round(float(v), 6) for v in np.where(leaf, tree.value[:, 0, 0] * learning_rate, 0.0)],  # type: ignore[attr-defined]
        depth=int(tree.max_depth),  # type: ignore[attr-defined]
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: train_v42.py MODEL.json")
    main(Path(sys.argv[1]))
