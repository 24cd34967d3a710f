"""Readers that die, come back and overlap lose nothing and double nothing; and each tempting shortcut would.

A mutant is a subclass that takes one shortcut. If no seed catches it, the simulator is blind there, so a mutant that
survives fails the test as well. `UNSHIP_SIMULATION_SEEDS` sets how many seeds are drawn.
"""

import os
from collections import Counter

import pytest

from streams.join import record_size, source_reader
from streams.window import early_labels, pending_predictions
from tests.effort import some_of
from tests.simulation.harsh import LOST, HarshSite, harsh_verdict
from tests.simulation.mutants import MUTANT_SEEDS, MUTANTS, is_caught
from tests.simulation.readers import Site, Verdict, verdict_of

SEEDS = int(os.environ.get("UNSHIP_SIMULATION_SEEDS", some_of(100)))
#: Feedback was gone whose join clock had been ahead of what was left: a later answer counted a prediction twice.
FOUND = (2_599, 5_199)
#: Seeds that catch shortcuts, tried first: as long as what is drawn stays the same, no other is needed.
CATCHING = (0, 1, 14, 18, 86)


def run(seed: int, kind: type[Site] = Site) -> tuple[Site, Verdict]:
    site = kind(seed)
    site.run()
    return site, verdict_of(site)


@pytest.mark.parametrize("part", range(4))
def test_nothing_is_lost_doubled_or_made_up_whatever_the_readers_do(part: int) -> None:
    """Rerun one seed with: python -m tests.simulation SEED."""
    reached: Counter[str] = Counter()
    outcomes = 0
    for seed in range(part, SEEDS, 4):
        site, verdict = run(seed)
        assert verdict.clean, (seed, verdict)
        outcomes += sum(site.applied().values())
        reached += site.reached
    # A path that no seed takes is not tested, however many seeds there are.
    for path in ("overlap", "zombie_commit", "restart", "batch_lost", "waits_for_window"):
        assert reached[path] > 0, (path, reached)
    assert outcomes > SEEDS


@pytest.mark.parametrize("part", range(2))
def test_what_is_kept_of_a_request_does_not_depend_on_the_readers(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """Limits so low that a window which is filled again, from any record on, has to know where an interval began."""
    monkeypatch.setattr(source_reader, "SAMPLE_RECORDS", 1)
    monkeypatch.setattr(pending_predictions, "VERSIONS_MAX", 1)
    monkeypatch.setattr(pending_predictions, "UNLISTED_MAX", 2)
    monkeypatch.setattr(early_labels, "LABELS_MAX", 1)
    limited = 0
    for seed in range(part, SEEDS, 2):
        site, verdict = run(10_000 + seed)
        assert verdict.clean, (seed, verdict)
        limited += site.rejected()["REQUEST_LIMIT"]
    assert limited > SEEDS // 3


@pytest.mark.parametrize("part", range(2))
def test_batches_that_end_where_a_record_is_full_lose_nothing(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(record_size, "ROOM", 1_200)
    monkeypatch.setattr(record_size, "FEW", 0)
    pieces = 0
    for seed in range(part, SEEDS, 2):
        site, verdict = run(20_000 + seed)
        assert verdict.clean, (seed, verdict)
        pieces += site.reached["pieces"]
    assert pieces > SEEDS


PATHS: dict[str, tuple[str, ...]] = {
    "vanishing": ("vanished", "gap", "rewind"),
    "renewal": ("foreign", "rewind", "old_commit"),
    "retention": ("hole", "window_hole"),
    "reconfiguration": ("foreign", "rewind"),
    "damage": ("damage_noticed", "restart"),
    "upgrade": ("old_stops", "foreign", "rewind"),
}


@pytest.mark.parametrize(
    "faults", [*({fault} for fault in sorted(LOST)), LOST], ids=lambda faults: "+".join(sorted(faults))
)
def test_faults_of_the_logs_are_healed_or_counted(faults: frozenset[str]) -> None:
    reached: Counter[str] = Counter()
    for seed in range(SEEDS // 5):
        site = HarshSite(seed, frozenset(faults))
        site.run()
        verdict = harsh_verdict(site)
        assert verdict.clean, (seed, verdict)
        reached += site.reached
    for path in (path for fault in faults for path in PATHS[fault]):
        assert reached[path] > 0, (path, reached)


@pytest.mark.parametrize("seed", FOUND)
def test_seeds_that_found_something_stay_clean(seed: int) -> None:
    site = HarshSite(seed)
    site.run()
    assert harsh_verdict(site).clean


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda kind: kind.__name__)
def test_each_tempting_shortcut_is_caught(mutant: type[Site]) -> None:
    assert any(is_caught(mutant, seed) for seed in (*CATCHING, *range(MUTANT_SEEDS)))
