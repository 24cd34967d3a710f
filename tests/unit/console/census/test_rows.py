"""The kept rows are the ones that the documentation describes."""

from importlib.resources import files

import numpy as np
import pytest

from console.census.rows import FEATURES, REFERENCE_ROWS, load_rows
from console.census.scenarios import ANOMALY, SCENARIOS, in_age_bands


def test_the_data_of_the_package_stay_small():
    """Everybody who clones the repository downloads them."""
    sizes = [len(files("console.census").joinpath(name).read_bytes()) for name in ("rows.npz", "model_v42.json")]
    assert sum(sizes) < 1_000_000


def test_every_row_keeps_its_number_in_the_survey_file():
    rows = load_rows()
    assert len(rows.row) == len(np.unique(rows.row)) == 128_125
    assert bool((np.diff(rows.row) > 0).all())
    assert rows.features.shape == (len(FEATURES), len(rows.row))


def test_the_reference_part_is_the_survey_of_2015():
    rows = load_rows()
    assert bool(((rows.year == 2015) == (rows.row < REFERENCE_ROWS)).all())


def test_v41_answers_one_where_its_probability_reaches_a_half():
    """Exactly a half is left out: four decimals do not say on which side it was."""
    rows = load_rows()
    clear = rows.probability != 0.5
    assert bool(((rows.probability >= 0.5) == (rows.prediction == 1))[clear].all())
    assert int((~clear).sum()) < 20


def test_the_anomaly_holds_residents_of_group_quarters_and_nobody_else():
    rows = load_rows()
    inside = (rows.row >= ANOMALY[0]) & (rows.row < ANOMALY[1])
    around = (rows.row >= ANOMALY[0] - 4_000) & (rows.row < ANOMALY[1] + 4_000) & ~inside
    resident = rows.feature("RELP") >= 16
    assert float(resident[inside].mean()) > 0.999
    assert float(resident[around].mean()) == 0.0


def test_in_the_anomaly_v41_errs_more_often_over_all_but_not_among_people_of_the_same_kind():
    """This is what makes it a change of the mix, and a rollback there wrong."""
    rows = load_rows()
    wrong = rows.prediction != rows.truth
    kind = rows.feature("RELP")
    inside = (rows.row >= ANOMALY[0]) & (rows.row < ANOMALY[1])
    before = (rows.row >= REFERENCE_ROWS) & (rows.row < ANOMALY[0])
    assert wrong[inside].mean() - wrong[before].mean() > 0.05
    for value in (16, 17):
        assert abs(wrong[inside & (kind == value)].mean() - wrong[before & (kind == value)].mean()) < 0.02


def test_asking_for_rows_that_are_not_kept_says_which():
    with pytest.raises(ValueError, match="rows 60000 to 60010: 0 of 10 are kept"):
        load_rows().take(((60_000, 60_010),))


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_the_turning_points_of_a_scenario_are_among_its_rows_in_order(scenario):
    rows = load_rows().take(scenario.stretches).row.tolist()
    released = rows.index(scenario.released_at)
    assert 0 < released < len(rows)
    if scenario.changed_from is not None:
        assert rows.index(scenario.changed_from) > released


def test_age_bands_change_no_other_feature_and_leave_no_gap():
    rows = load_rows()
    banded = in_age_bands(rows.features)
    age = FEATURES.index("AGEP")
    assert np.unique(banded[age]).tolist() == [0, 15, 30, 45, 60, 75, 90]
    assert bool((np.delete(banded, age, axis=0) == np.delete(rows.features, age, axis=0)).all())
    assert bool((rows.features[age] - banded[age] < 15).all())
