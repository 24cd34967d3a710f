"""Readers, folds and drivers that take one tempting shortcut each: the simulator has to see what it costs."""

from typing import Any

import msgspec

from detectors.base import Ints
from streams.join.partition import FEEDBACK, PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader, _Side
from streams.join.source_records import SourceRecords
from streams.ledger.coverage import Coverage
from streams.ledger.entries import Entry, entry_of
from streams.ledger.records import Batch, Configured
from streams.pipeline import configuration_record
from tests.simulation.harsh import HarshSite, harsh_verdict
from tests.simulation.readers import Driver, SeeingFold, Site, verdict_of

MUTANT_SEEDS = 1_500


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


class TightWindow(SourceReader):
    """Fills the window with what labels may still reach, and forgets what may block them."""

    def position(self) -> Position:
        position = super().position()
        a, b = (side.clock for side in self._sides)
        low = []
        horizon = max(rule.horizon_ms for rule in self._join.window.slow.rules)
        for side, oldest in ((PREDICTIONS, b - horizon + 1), (FEEDBACK, a + 1)):
            log = self._sides[side]
            older = [raw for raw in self._seen[side] if raw.append_ts < oldest]
            low.append(older[-1].offset + 1 if older else log.samples[0][0])
        return msgspec.structs.replace(position, low=(max(low[0], position.low[0]), max(low[1], position.low[1])))

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._seen: tuple[list[Raw], list[Raw]] = ([], [])
        super().__init__(*arguments, **settings)

    def _read(self, side: int, records: SourceRecords) -> None:
        self._seen[side].extend(map(Raw, records.offsets.tolist(), records.append_ts.tolist(), records.values))
        super()._read(side, records)


class TightSite(Site):
    reader_class = TightWindow


class EagerReader(SourceReader):
    """Forgets by the faster of the two clocks."""

    def _read(self, side: int, records: SourceRecords) -> None:
        super()._read(side, records)
        now = max(log.clock for log in self._sides)
        self._join.window.evict(now, now)


class EagerSite(Site):
    reader_class = EagerReader


class RawSide(_Side):
    """Takes append times as they are, also when they fall back."""

    def clocks_at(self, append_ts: Ints) -> Ints:
        return append_ts


class RawClock(SourceReader):
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


class UncheckedSite(HarshSite):
    """Believes a committed position that was changed, if it can be read at all."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, frozenset({"damage"}))

    def read_position(self, data: bytes) -> Position | None:
        try:
            return msgspec.json.decode(data.partition(b" ")[2], type=Position)
        except (msgspec.DecodeError, ValueError):
            return None


class OverrunningFold(SeeingFold):
    """Goes on under rules that it does not know."""

    def step(self, entry: Entry) -> Any:
        if isinstance(entry.record, Configured):
            entry = entry_of(configuration_record(self.config))
        return super().step(entry)


class OverrunningSite(HarshSite):
    """The old workers fold on behind an upgrade."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, frozenset({"upgrade"}))

    def _stop_before(self, old: SeeingFold, record: Configured) -> None:
        old.__class__ = OverrunningFold
        super()._stop_before(old, record)


MUTANTS = [LargestCornerSite, QuietSite, TightSite, EagerSite, RawSite, EarlyCommitSite, UncheckedSite, OverrunningSite]


def is_caught(mutant: type[Site], seed: int) -> bool:
    """Whether a seed shows what a shortcut does; so does one in which it can go on no more."""
    site = mutant(seed)
    try:
        site.run()
    except (AssertionError, ValueError, IndexError, OverflowError):
        return True
    return not (harsh_verdict(site) if isinstance(site, HarshSite) else verdict_of(site)).clean
