"""Describe the scenarios: which rows are asked, when v42 goes live, and what changes upstream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from console.census.rows import FEATURES, analysis_row

HOLDBACK_SHARE = 0.1
MODEL = "employment"
SLICES = ("RELP", "SEX", "RAC1P")
"""Relation to the householder, sex and race: 18 + 2 + 9 values."""

# From the first row to the last the survey file holds only residents of group quarters: institutions (RELP 16)
# and student halls or barracks (RELP 17). The file of 2017 ends with its residents, that of 2018 begins with them.
ANOMALY = (analysis_row(133_619), analysis_row(143_890))
LATE_2016 = (analysis_row(45_000), analysis_row(69_125))

BAND_YEARS = 15
LOST_RACE = 2
"""The RAC1P of which the age gets lost in one scenario."""


def in_age_bands(features: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Re-encode AGEP as the upstream survey processing does after the change; returns a copy, (16, n).

    To protect respondents, ages are published as the first year of a band of fifteen: 0, 15, 30, ... Nothing breaks:
    the column keeps its name and type, no value is missing and none is out of range. But 29 reads as 15 and 44 as 30,
    and v42, trained on single years, takes most people in their twenties for schoolchildren.

    Example:
        >>> ages = np.zeros((16, 3), dtype=np.uint8)
        >>> ages[0] = [14, 29, 62]
        >>> in_age_bands(ages)[0].tolist()
        [0, 15, 60]
    """
    banded = features.copy()
    age = FEATURES.index("AGEP")
    banded[age] = features[age] // BAND_YEARS * BAND_YEARS
    return banded


def without_age_of_some(features: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lose AGEP of one person in seventeen, by RAC1P: a blank that a later step reads as 0; returns a copy, (16, n).

    Example:
        >>> people = np.zeros((16, 2), dtype=np.uint8)
        >>> people[0], people[FEATURES.index("RAC1P")] = [31, 35], [1, 2]
        >>> without_age_of_some(people)[0].tolist()
        [31, 0]
    """
    lost = features.copy()
    lost[FEATURES.index("AGEP"), features[FEATURES.index("RAC1P")] == LOST_RACE] = 0
    return lost


class Change(StrEnum):
    """Name what changes from one row on; the value names the phase after it."""

    NOTHING = ""
    AGE_BANDS = "age in bands"
    AGE_LOST = "age of some lost"
    WORLD = "half of the workers at home"
    LIAR = "one source lies"
    SLOW_LABELS = "labels of workers in bursts"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Describe one course of events.

    Attributes:
        name: As on the command line.
        story: What happens, in one sentence.
        stretches: Rows that are asked, in file order inside each stretch: (first row, row after the last) of the file.
        released_at: First row that is asked after v42 went live; before it v41 answers everything.
        change: What changes.
        changed_from: First row that the change concerns, or None.
        prompt: Whether labels come within minutes; else their tail reaches beyond the maturity.
    """

    name: str
    story: str
    stretches: tuple[tuple[int, int], ...]
    released_at: int
    change: Change = Change.NOTHING
    changed_from: int | None = None
    prompt: bool = False


_AUTUMN_2016 = ((analysis_row(28_000), analysis_row(69_125)),)
_ALL_2016 = ((analysis_row(20_000), analysis_row(69_125)),)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="decay",
            story="Age starts to arrive in bands of 15 years; v42 reads it, v41 does not.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
            change=Change.AGE_BANDS,
            changed_from=analysis_row(47_000),
        ),
        Scenario(
            name="slice",
            story="For one group (RAC1P 2) the age gets lost and arrives as 0; for all others v42 is as good as ever.",
            # So few people of each version take long to count; group quarters, another story, are left out.
            stretches=(
                *_ALL_2016,
                (analysis_row(129_500), ANOMALY[0]),
                (ANOMALY[1], analysis_row(158_000)),
            ),
            released_at=analysis_row(30_000),
            change=Change.AGE_LOST,
            changed_from=analysis_row(36_500),
        ),
        Scenario(
            name="both-bad",
            story="Half of those who have work stay at home one day; neither version could know.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
            change=Change.WORLD,
            changed_from=analysis_row(47_000),
        ),
        Scenario(
            name="mix-shift",
            story="The survey turns to residents of group quarters, whose work no version predicts well.",
            # 2017 has no residents of group quarters before the anomaly, so what is normal for them must come from
            # 2016: a page that explains the rise by the mix needs some two thousand of them beforehand.
            stretches=(*_ALL_2016, (analysis_row(130_500), analysis_row(148_000))),
            released_at=analysis_row(33_000),
        ),
        Scenario(
            name="no-change",
            story="v42 replaces v41 and is as good; nothing else happens.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
        ),
        Scenario(
            name="poison",
            story="One of three label sources starts to contradict v42 where v42 is right.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
            change=Change.LIAR,
            changed_from=analysis_row(47_000),
        ),
        Scenario(
            name="late-labels",
            story="The truth about people with work starts to come late and in bursts, that about others at once.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
            change=Change.SLOW_LABELS,
            changed_from=analysis_row(47_000),
            prompt=True,
        ),
        Scenario(
            name="mix-shift-and-decay",
            story="Age starts to arrive in bands shortly before the survey turns to residents of group quarters.",
            stretches=(LATE_2016, (analysis_row(129_500), analysis_row(158_000))),
            released_at=analysis_row(56_000),
            change=Change.AGE_BANDS,
            changed_from=analysis_row(131_500),
        ),
    )
}


def scenario_named(name: str) -> Scenario:
    """Return a scenario; raises ValueError that lists the names."""
    if name not in SCENARIOS:
        raise ValueError(f"expected one of {', '.join(SCENARIOS)}, was {name!r}")
    return SCENARIOS[name]


def config_yaml(scenario: str, holdback: bool = False) -> str:
    """Return the `unship.yaml` under which the recording of this scenario is watched (the same for all of them).

    With `holdback` the monitor holds the version back that is replaced, for the same part of the requests as there.

    Example:
        >>> "mode: act" in config_yaml("decay")
        True
    """
    scenario_named(scenario)
    kept = f", holdback: {{share: {HOLDBACK_SHARE}, keep: always}}" if holdback else ""
    return f"""\
log: embedded:./unship-data
models:
  {MODEL}:
    target: {{kind: binary}}
    losses: [zero_one, brier]
    labels: {{horizon: 1d, mature_after: 1h, early: 10m}}
    slices: {{by: [{", ".join(SLICES)}], cap: 50}}
    worse_by: 0.02
    policy: {{mode: act{kept}}}
"""
