"""v42 is a plausible release, computes what its file says, and decays when age arrives in bands."""

import hashlib
from importlib.resources import files

import numpy as np
import pytest

from console.census.rows import FEATURES, REFERENCE_ROWS, load_rows
from console.census.scenarios import ANOMALY, in_age_bands
from console.census.trees import load_v42, probability_of_work


def walked(model, codes):
    """Answer for one person by the plain reading of the model file."""
    log_odds = model.base
    for tree in model.trees:
        node = 0
        while tree.left[node] != node:
            child = tree.left if codes[tree.feature[node]] <= tree.threshold[node] else tree.right
            node = child[node]
        log_odds += tree.value[node]
    return 1.0 / (1.0 + np.exp(-log_odds))


def errors(rows, probability):
    return (probability >= 0.5) != (rows.truth == 1)


@pytest.fixture(scope="module")
def served():
    """All rows that were ever asked, v42's answers to them, and its answers when age comes in bands."""
    rows = load_rows()
    asked = rows.take(((88_785, 137_910), (197_785, 226_785)))
    assert int(asked.row.min()) >= REFERENCE_ROWS, "v42 was trained on rows of the reference part only"
    model = load_v42().model
    return asked, probability_of_work(model, asked.features), probability_of_work(model, in_age_bands(asked.features))


def test_walking_all_rows_at_once_equals_walking_one_by_one():
    rows, model = load_rows(), load_v42().model
    chosen = np.random.default_rng(5).choice(len(rows.row), size=200, replace=False)
    features = in_age_bands(rows.features[:, chosen]) if chosen[0] % 2 else rows.features[:, chosen]
    one_by_one = [round(float(walked(model, features[:, at].tolist())), 4) for at in range(len(chosen))]
    assert probability_of_work(model, features).tolist() == pytest.approx(one_by_one, abs=1.01e-4)


def test_no_person_gives_no_answer():
    assert probability_of_work(load_v42().model, np.zeros((len(FEATURES), 0), dtype=np.uint8)).shape == (0,)


def test_the_stated_offline_metrics_are_those_of_rows_held_out_of_training():
    model = load_v42().model
    first, stop = model.tested_rows
    assert first >= model.trained_rows[1]
    held_out = load_rows().take(((first, stop),))
    probability = probability_of_work(model, held_out.features)
    assert model.offline["zero_one"].n == stop - first
    assert model.offline["zero_one"].mean == pytest.approx(errors(held_out, probability).mean(), abs=2e-4)
    assert model.offline["brier"].mean == pytest.approx(((probability - held_out.truth) ** 2).mean(), abs=2e-5)


def test_v42_is_as_good_as_v41_inside_and_outside_the_anomaly(served):
    rows, probability, _ = served
    inside = (rows.row >= ANOMALY[0]) & (rows.row < ANOMALY[1])
    v42, v41 = errors(rows, probability), rows.prediction != rows.truth
    for part in (inside, ~inside):
        assert abs(v42[part].mean() - v41[part].mean()) < 0.005


def test_age_in_bands_makes_v42_err_half_again_as_often_where_people_live_at_home(served):
    rows, probability, in_bands = served
    at_home = rows.feature("RELP") < 16
    before, after = errors(rows, probability)[at_home].mean(), errors(rows, in_bands)[at_home].mean()
    assert 0.16 < before < 0.19
    assert 0.24 < after < 0.28


def test_the_artifact_is_the_digest_of_the_model_file():
    data = files("console.census").joinpath("model_v42.json").read_bytes()
    assert load_v42().artifact == "sha256:" + hashlib.sha256(data).hexdigest()
