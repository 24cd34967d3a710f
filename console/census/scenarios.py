"""Describe what each recording tells: which rows are asked, when v42 goes live, and what changes upstream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from console.census.rows import FEATURES, analysis_row

MODEL = "employment"
SLICES = ("RELP", "SEX", "RAC1P")
"""Relation to the householder, sex and race: 18 + 2 + 9 values."""

# From the first row to the last the survey file holds nobody but residents of group quarters: institutions (RELP 16)
# and student halls or barracks (RELP 17). The file of 2017 ends with its residents, that of 2018 begins with them.
ANOMALY = (analysis_row(133_619), analysis_row(143_890))
LATE_2016 = (analysis_row(45_000), analysis_row(69_125))

BAND_YEARS = 15


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


@dataclass(frozen=True, slots=True)
class Scenario:
    """Describe one recording.

    Attributes:
        name: as on the command line.
        story: what happens, in one sentence.
        stretches: rows that are asked, in file order inside each stretch: (first row, row after the last) of the file.
        released_at: first row that is asked after v42 went live; before it v41 answers everything.
        banded_from: first row whose AGEP arrives in bands, or None.
    """

    name: str
    story: str
    stretches: tuple[tuple[int, int], ...]
    released_at: int
    banded_from: int | None


_AUTUMN_2016 = ((analysis_row(28_000), analysis_row(69_125)),)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="decay",
            story="Age starts to arrive in bands of 15 years; v42 reads it, v41 does not.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
            banded_from=analysis_row(47_000),
        ),
        Scenario(
            name="mix-shift",
            story="The survey turns to residents of group quarters, whose work no version predicts well.",
            # 2017 has no residents of group quarters before the anomaly, so what is normal for them must come from
            # 2016: a page that explains the rise by the mix needs some two thousand of them beforehand.
            stretches=((analysis_row(20_000), analysis_row(69_125)), (analysis_row(130_500), analysis_row(148_000))),
            released_at=analysis_row(33_000),
            banded_from=None,
        ),
        Scenario(
            name="no-change",
            story="v42 replaces v41 and is as good; nothing else happens.",
            stretches=_AUTUMN_2016,
            released_at=analysis_row(37_500),
            banded_from=None,
        ),
        Scenario(
            name="mix-shift-and-decay",
            story="Age starts to arrive in bands shortly before the survey turns to residents of group quarters.",
            stretches=(LATE_2016, (analysis_row(129_500), analysis_row(158_000))),
            released_at=analysis_row(56_000),
            banded_from=analysis_row(131_500),
        ),
    )
}


def scenario_named(name: str) -> Scenario:
    """Return a scenario; raises ValueError that lists the names."""
    if name not in SCENARIOS:
        raise ValueError(f"expected one of {', '.join(SCENARIOS)}, was {name!r}")
    return SCENARIOS[name]


def config_yaml(scenario: str) -> str:
    """Return the `unship.yaml` under which the recording of this scenario is watched (the same for all of them).

    Example:
        >>> "mode: act" in config_yaml("decay")
        True
    """
    scenario_named(scenario)
    return f"""\
log: embedded:./unship-data
models:
  {MODEL}:
    target: {{kind: binary}}
    losses: [zero_one, brier]
    labels: {{horizon: 1d, mature_after: 1h, early: 10m}}
    slices: {{by: [{", ".join(SLICES)}], cap: 50}}
    worse_by: 0.02
    policy: {{mode: act}}
"""
