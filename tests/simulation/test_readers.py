"""Readers that die, come back and overlap lose nothing and double nothing; and each tempting shortcut would.

A mutant is a subclass that takes one shortcut. If no seed catches it, the simulator is blind there, so a mutant that
survives fails the test as well. `UNSHIP_SIMULATION_SEEDS` sets how many seeds are drawn.
"""

import os
from collections import Counter
from typing import Any

import msgspec
import pytest

from streams.coverage import Coverage
from streams.reader import FEEDBACK, PREDICTIONS, Position, Raw, Reader, _Side
from streams.records import Batch
from tests.simulation.harsh import LOST, HarshSite, harsh_verdict
from tests.simulation.readers import Driver, Site, Verdict, verdict_of

SEEDS = int(os.environ.get("UNSHIP_SIMULATION_SEEDS", "150"))
MUTANT_SEEDS = 1_500


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


PATHS: dict[str, tuple[str, ...]] = {
    "vanishing": ("vanished", "gap", "rewind"),
    "renewal": ("foreign", "rewind", "old_commit"),
    "retention": ("hole", "window_hole"),
    "reconfiguration": ("foreign", "rewind"),
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


class LargerOfBoth(Coverage):
    """One corner, the larger of two in each coordinate."""

    def add(self, end: Any) -> None:
        self.corners = [(max(self.corners[0][0], end[0]), max(self.corners[0][1], end[1]))]


class LargestCornerSite(Site):
    coverage_class = LargerOfBoth


class OnlyWithRows(Driver):
    """Ledger partitions without a row are told nothing, before a commit either."""

    def flush(self, rng: Any, *, cut_off: bool) -> None:
        if self.reader.filling or not (self.reader.moved or self.reader.waiting):
            return
        for k, batch in enumerate(self.reader.flush()):
            if batch.parts:
                self.site.append(k, batch)


class QuietSite(Site):
    driver_class = OnlyWithRows


class TightWindow(Reader):
    """Fills the window with what labels may still reach, and forgets what may block them."""

    def position(self) -> Position:
        position = super().position()
        a, b = (side.clock for side in self._sides)
        low = []
        for side, oldest in ((PREDICTIONS, b - self._horizon_ms + 1), (FEEDBACK, a + 1)):
            log = self._sides[side]
            older = [raw for raw in self._seen[side] if raw.append_ts < oldest]
            low.append(older[-1].offset + 1 if older else log.samples[0][0])
        return msgspec.structs.replace(position, low=(max(low[0], position.low[0]), max(low[1], position.low[1])))

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._seen: tuple[list[Raw], list[Raw]] = ([], [])
        super().__init__(*arguments, **settings)

    def _read(self, side: int, raw: Raw, event: Any) -> None:
        self._seen[side].append(raw)
        super()._read(side, raw, event)


class TightSite(Site):
    reader_class = TightWindow


class EagerReader(Reader):
    """Forgets by the faster of the two clocks."""

    def _read(self, side: int, raw: Raw, event: Any) -> None:
        super()._read(side, raw, event)
        now = max(log.clock for log in self._sides)
        self._ingest.window.evict(now, now)


class EagerSite(Site):
    reader_class = EagerReader


class RawSide(_Side):
    """Takes append times as they are, also when they fall back."""

    def passed(self, raw: Raw) -> None:
        super().passed(raw)
        self.clock = raw.append_ts


class RawClock(Reader):
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for side in self._sides:
            side.__class__ = RawSide


class RawSite(Site):
    reader_class = RawClock


class CommitsFirst(Driver):
    """Commits what it has read before the batches are acknowledged."""

    def flush(self, rng: Any, *, cut_off: bool) -> None:
        if self.reader.filling or not self.reader.moved:
            return
        batches = self.reader.flush()
        self.site.committed = self.reader.position()
        for k, batch in enumerate(batches):
            if cut_off and rng.random() < 0.5:
                self.sent = False
                continue
            self._append(k, batch)
        if not self.sent:
            self.site.drop(self)

    def _append(self, k: int, batch: Batch) -> None:
        self.site.append(k, batch)


class EarlyCommitSite(Site):
    driver_class = CommitsFirst


MUTANTS = [LargestCornerSite, QuietSite, TightSite, EagerSite, RawSite, EarlyCommitSite]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda kind: kind.__name__)
def test_each_tempting_shortcut_is_caught(mutant: type[Site]) -> None:
    assert any(not run(seed, mutant)[1].clean for seed in range(MUTANT_SEEDS))
