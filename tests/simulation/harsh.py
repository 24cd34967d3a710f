"""What befalls logs beside readers: retention that is too short, topics made anew, ledger records that vanish, damaged
positions, and another configuration or version of the fold while old workers live on."""

import copy
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import streams.config.resolved
import streams.fold.fold
import streams.pipeline
from streams.config.parse import parse
from streams.config.resolved import FOLD_VERSION
from streams.fold.fold import LedgerMismatch
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of
from streams.ledger.records import Batch, Begun, Configured
from streams.pipeline import configuration_record
from streams.rounds.rewind import position_of, position_text
from tests.pipelines import source_records_of
from tests.simulation.readers import LEDGER_PARTITIONS, Driver, SeeingFold, Site, Verdict, World, miscounted

LOST = frozenset({"retention", "renewal", "vanishing", "reconfiguration", "damage", "upgrade"})
UPGRADES_MAX = 2


@contextmanager
def program(version: int) -> Iterator[None]:
    """Be the program whose fold has a version."""
    modules: Any = (streams.config.resolved, streams.fold.fold, streams.pipeline)
    for module in modules:
        module.FOLD_VERSION = version
    try:
        yield
    finally:
        for module in modules:
            module.FOLD_VERSION = FOLD_VERSION


class HarshDriver(Driver):
    """Opens as the service does: what retention took before it was read is skipped and counted."""

    def __init__(self, site: "HarshSite", position: Position) -> None:
        if position.incarnation < site.incarnation:
            # Committed by a zombie of the topics that were; which incarnation there is stands elsewhere.
            site.reached["old_commit"] += 1
            position = Position(partitions=1, incarnation=site.incarnation)
        super().__init__(site, position)
        self.world = site.world
        self.pass_over()

    def read(self, rng: random.Random) -> None:
        # A zombie goes on with the log that it had opened.
        world, self.site.world = self.site.world, self.world
        if self.world is world:
            self.pass_over()
        super().read(rng)
        self.site.world = world

    def pass_over(self) -> None:
        """Skip what retention took before it was fetched."""
        for side, first in enumerate(self.site.first):  # type: ignore[attr-defined]
            if first > self.reader.next_offset(side):
                self.reader.advance((True, True), 10_000)
                if first > self.reader.next_offset(side) and not self.reader.queued(side):
                    self.site.reached["window_hole" if self.reader.filling else "hole"] += 1
                    self.reader.skip(side, first, lost=True)


class HarshSite(Site):
    """A site where each of the faults of `LOST` may happen."""

    driver_class = HarshDriver
    faults = LOST

    def __init__(self, seed: int, faults: frozenset[str] = LOST) -> None:
        self.first = [0, 0]
        self.faults = faults
        self.incarnation = 0
        self.worlds: list[World] = []
        self.vanished: set[int] = set()
        self.version = FOLD_VERSION
        self.overrun = 0
        super().__init__(seed)
        self.worlds.append(self.world)

    def new_reader(self, position: Position) -> SourceReader:
        with program(self.version):
            return super().new_reader(position)

    def append(self, k: int, batch: Batch) -> None:
        if k in self.vanished:
            # It was acknowledged, and is not there: the ledger was cut off.
            self.vanished.discard(k)
            self.reached["vanished"] += 1
            return
        before = self.folds[k].rejected["FOREIGN_BATCH"]
        super().append(k, batch)
        self.reached["foreign"] += self.folds[k].rejected["FOREIGN_BATCH"] - before
        if self.folds[k].gaps:
            self.rewind()

    def drop(self, driver: Driver) -> None:
        if driver in self.alive:
            super().drop(driver)

    def rewind(self) -> None:
        """The owner reads everything again, as the controller asks."""
        self.reached["rewind"] += 1
        if self.owner in self.alive:
            self.alive.remove(self.owner)
        self.committed = Position(partitions=1, incarnation=self.incarnation)
        self.owner = self.driver_class(self, self.committed)
        self.alive.append(self.owner)

    def step(self) -> None:
        chance = self.rng.random()
        if chance < 0.01 and "retention" in self.faults:
            self._retain()
        elif chance < 0.015 and "renewal" in self.faults and self.incarnation < 2:
            self._renew()
        elif chance < 0.03 and "vanishing" in self.faults:
            self.vanished.add(self.rng.randrange(LEDGER_PARTITIONS))
        elif chance < 0.035 and "reconfiguration" in self.faults:
            self._reconfigure()
        elif chance < 0.045 and "damage" in self.faults:
            self._damage()
        elif chance < 0.05 and "upgrade" in self.faults and self.version < FOLD_VERSION + UPGRADES_MAX:
            self._upgrade()
        else:
            super().step()

    def _retain(self) -> None:
        """Retention takes the front of one log, read or not."""
        side = self.rng.randrange(2)
        log = (self.world.predictions, self.world.feedback)[side]
        self.first[side] = max(self.first[side], self.rng.choice(log).offset)

    def _renew(self) -> None:
        """Both topics are made anew, and an operator says so."""
        self.incarnation += 1
        self.world, self.first = World(self.rng, like=self.world), [0, 0]
        self.worlds.append(self.world)
        for fold in self.folds:
            fold.step(entry_of(Begun(max(fold.clock, 0), 0, self.incarnation)))
        self.rewind()

    def _reconfigure(self) -> None:
        """A worker with another configuration starts; the others live on with the one they have."""
        text = f"defaults: {{labels: {{horizon: {self.world.horizon}ms, early: {self.world.early}ms}}, worse_by: "
        self.config = parse(f"{text}{self.rng.choice([0.01, 0.03, 0.05])}}}")
        with program(self.version):
            for fold in self.folds:
                fold.step(entry_of(self._stated()))
        self.rewind()

    def _stated(self) -> Configured:
        return msgspec.structs.replace(configuration_record(self.config), ledger_partitions=LEDGER_PARTITIONS)

    def _damage(self) -> None:
        """What was committed is cut short, or one of its bits flips, before the owner dies."""
        data = bytearray(position_text(self.committed).encode())
        if self.rng.random() < 0.2:
            del data[self.rng.randrange(len(data)) :]
        else:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        position = self.read_position(bytes(data))
        if position is None:
            self.reached["damage_noticed"] += 1
        self.committed = position or Position(partitions=1, incarnation=self.incarnation)
        self.drop(self.owner)

    def read_position(self, data: bytes) -> Position | None:
        return position_of(data)

    def _upgrade(self) -> None:
        """A worker with the next program starts, which knows the rules so far as well; the others cannot go on."""
        self.version += 1
        with program(self.version):
            record = self._stated()
        for fold in self.folds:
            with program(self.version - 1):
                self._stop_before(copy.deepcopy(fold), record)
            with program(self.version):
                fold.step(entry_of(record))
        self.rewind()

    def _stop_before(self, old: SeeingFold, record: Configured) -> None:
        """The fold of an old program refuses the record, and is what it was before."""
        before = copy.deepcopy(old.save())
        try:
            old.step(entry_of(record))
        except LedgerMismatch:
            self.reached["old_stops"] += 1
        else:
            self.overrun += 1
        self.overrun += old.save() != before

    def run(self, steps: int = 150) -> None:
        """Faults first; then the owner alone, to the end of both logs."""
        for _ in range(steps):
            self.step()
        self.vanished.clear()
        for _ in range(50):
            owner = self.owner
            owner.pass_over()  # type: ignore[attr-defined]
            for side, log in enumerate((self.world.predictions, self.world.feedback)):
                owner.reader.give(side, source_records_of([raw for raw in log if raw.offset >= self.first[side]]))
            owner.reader.advance((True, True), 10_000)
            owner.flush(self.rng, cut_off=False)
            if owner is self.owner and not owner.reader.moved and not owner.reader.filling:
                self._tell_the_end(owner)
                if owner is self.owner:
                    return
        raise AssertionError("no progress")

    def _tell_the_end(self, owner: Any) -> None:
        """A batch without rows shows a gap that nothing else would show."""
        for k, batch in enumerate(owner.reader.flush()):
            self.append(k, batch)


def harsh_verdict(site: HarshSite) -> Verdict:
    """Compare with the oracle: what is missing must lie in front of what retention left, and be counted."""
    applied: Counter[Any] = site.applied()
    lost = set(site.world.expected()) - set(applied)
    # Retention may take what was not read yet, or what the window needs to tell an answer from a repeat.
    excused = "retention" in site.faults and site.reached["hole"] + site.reached["window_hole"] > 0
    everything = set().union(*(world.expected() for world in site.worlds))
    # Topics made anew give offsets out again, so a row of one world may look like that of another.
    doubled = sum(count > 1 for count in applied.values()) if len(site.worlds) == 1 else 0
    return Verdict(
        lost=0 if excused else len(lost),
        doubled=doubled,
        phantoms=0 if excused else len(set(applied) - everything),
        gaps=sum(len(fold.gaps) for fold in site.folds),
        # Counts of what is gone are gone too, and those of topics made anew come on top.
        miscounted=0 if site.faults & {"retention", "renewal"} else miscounted(site),
        overrun=site.overrun,
    )
