"""A part of the labels lies: what the documentation promises then, with a list of sources and without, and what not.

The liar reports three labels in ten unless a test says otherwise, and calls every right answer of a version wrong.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from actions.journal import Decision
from streams.config.parse import parse
from tests.pipelines import Run
from tests.worlds.generator import Recording, generate
from tests.worlds.liars import attacked, calm, configuration

SHARE = 0.3


def decided(recording: Recording, listed: bool) -> list[Decision]:
    run = Run(parse(configuration(listed)))
    run.take(recording.lines)
    run.rest()
    return run.decisions


@lru_cache(maxsize=2)
def lied(seed: int, attack: str, share: float = SHARE, rise: float = 0.0) -> Recording:
    return attacked(calm(seed, rise=rise), attack, share)


def acts(decisions: list[Decision]) -> list[tuple[str, str, int]]:
    """Return what was decided, but for what was not acted upon."""
    return [(made.action, made.reason, made.ts) for made in decisions if made.action != "none"]


@pytest.mark.parametrize(
    ("attack", "share", "listed"),
    [
        ("one", SHARE, False),
        ("one", SHARE, True),
        ("stolen", SHARE, False),
        ("stolen", SHARE, True),
        ("seats", SHARE, False),
        ("seats", SHARE, True),
        ("pool", SHARE, False),
        ("pool", SHARE, True),
        ("pool", 0.6, True),
        ("split", SHARE, True),
    ],
)
def test_healthy_version_is_not_rolled_back_and_the_sources_are_suspect(
    attack: str, share: float, listed: bool
) -> None:
    decisions = decided(lied(2, attack, share), listed)
    assert [act[:2] for act in acts(decisions)] == [("page", "LABEL_SOURCE_SUSPECT")]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("listed", [False, True])
def test_source_that_lies_about_the_holdback_is_suspect_and_not_the_model(listed: bool, seed: int) -> None:
    decisions = decided(lied(seed, "holdback", rise=0.15), listed)
    assert [act[:2] for act in acts(decisions)] == [("page", "LABEL_SOURCE_SUSPECT")]
    sources = decisions[-1].evidence.sources
    assert isinstance(sources, dict)
    crm = sources["__other__" if listed else "crm"]
    assert crm.listed is False if listed else not crm.listed
    assert crm.target
    assert not crm.target.agrees


@pytest.mark.parametrize(("attack", "listed"), [("split", False), ("alias", False), ("alias", True)])
def test_lies_under_many_small_names_or_honest_ones_are_not_noticed_as_the_documentation_says(
    attack: str, listed: bool
) -> None:
    assert acts(decided(lied(1, attack), listed))[0][:2] == ("rollback", "TARGET_BETTER")


@pytest.mark.parametrize(("seed", "rise"), [(1, 0.15), (2, 0.15), (3, 0.25)])
def test_decay_that_all_sources_report_is_rolled_back_as_soon_with_a_list_as_without(rise: float, seed: int) -> None:
    honest = generate(calm(seed, rise=rise))
    free = acts(decided(honest, listed=False))
    assert [act[:2] for act in free] == [("rollback", "TARGET_BETTER")]
    assert acts(decided(honest, listed=True)) == free


@pytest.mark.parametrize("listed", [False, True])
def test_decay_of_all_versions_that_all_sources_report_is_no_fault_of_theirs(listed: bool) -> None:
    decisions = decided(generate(calm(1, rise=0.15, both=True)), listed)
    assert [act[:2] for act in acts(decisions)] == [("page", "ALL_DEGRADED")]


def test_source_outside_the_list_that_sees_no_decay_hides_none() -> None:
    """Nobody outside it turns the rollback into a page, as long as the others report most labels."""
    assert [act[:2] for act in acts(decided(lied(1, "silent", 0.4, 0.4), listed=True))] == [
        ("rollback", "TARGET_BETTER")
    ]


def test_eight_thrown_away_names_hide_no_real_decay() -> None:
    decisions = decided(attacked(calm(1, rise=0.15), "seats", 0.0), listed=False)
    assert [act[:2] for act in acts(decisions)] == [("rollback", "TARGET_BETTER")]
    assert isinstance(decisions[-1].evidence.sources, dict)
    assert {"chargebacks", "analysts", "customers"} <= set(decisions[-1].evidence.sources)
