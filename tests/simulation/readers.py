"""A world of two logs, readers that die, stop and come back, and folds: everything that matters is production code.

The simulator plays the driver: it decides which reader reads next, when batches are sent, which of them are lost before
they are acknowledged, when positions are committed, and which reader is thought dead. An oracle computes from the whole
logs what must have been applied.
"""

import random
from bisect import bisect_left
from collections import Counter
from types import SimpleNamespace
from typing import Any

import msgspec

from actions.desired import DesiredState
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.config.units import DAY_MS
from streams.evaluation.outcomes import Outcomes
from streams.fold.fold import Fold
from streams.join.partition import FEEDBACK, KINDS, PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.coverage import Coverage
from streams.ledger.entries import entry_of
from streams.ledger.records import Batch
from streams.pipeline import configuration_record
from tests.pipelines import source_records_of
from tests.request_limits import Asked, Told, kept_labels, kept_predictions
from unship.codec import decode_value
from unship.events import TS_MS_MIN
from unship.rejections import RejectCode, Rejection

LEDGER_PARTITIONS = 3
MODELS = ("a", "b", "c", "d")
Applied = tuple[int, str, str, int]
Clocked = tuple[int, dict[str, Any], int]
"""The offset of an event, the event, and its join clock."""
#: Values that are no event. Each is read all the same, counted once under its code, and moves the clock.
POISON = (
    None, b"", b"{no json", b"\xff\xfe{}", b"[" * 2_000, b"NaN", b'{"id": 1}', b'{"id": NaN}', b"[]",
    b'{"id": "i0", "model": "a", "version": "v1", "output": 1, "row": 1180591620717411303424}',
    b'{"id": "i0", "truth": 1e400}', b'{"id": "i0", "ts": "yesterday", "truth": 1}',
)  # fmt: skip
FALLS_BACK_MS = 5
#: When the logs begin.
START_MS = 1_772_000_000_000
#: What an event may say of its own time, beside nothing: it decides nothing, but what lies far ahead is refused, and so
#: is what lies before 2000.
OWN_TIMES = (0, 1_000, *(START_MS + later for later in (-DAY_MS, 0, 5_000, DAY_MS // 2, 2 * DAY_MS, 20_000 * DAY_MS)))


class SeenModel:
    """Stands in for the fold of a model where only what reaches it is of interest."""

    def __init__(self, name: str) -> None:
        self.name = name
        replicas = SimpleNamespace(begin_incarnation=lambda topic, partition: None, record=lambda **recorded: None)
        self.state = SimpleNamespace(desired=DesiredState(), replicas=replicas)
        self.width = 0
        self.counts: Counter[str] = Counter()
        self.applied: Counter[tuple[str, int]] = Counter()
        self.predicted: Counter[str] = Counter()

    def save(self) -> Any:
        return self.counts, self.applied, self.predicted

    def arrive(self, part: Any) -> None:
        """Look at nothing ahead."""

    def take_outcomes(self, record: Outcomes) -> None:
        for arm, position in zip(record.arm.tolist(), record.position.tolist(), strict=True):
            self.applied[record.arms[arm].version, position] += 1
        for arm, _, count in record.predictions:
            self.predicted[record.arms[arm].version] += count


class SeeingFold(Fold):
    """The production fold, with models that only note what reaches them."""

    def _model(self, name: str) -> Any:
        return self.models.setdefault(name, SeenModel(name))  # type: ignore[arg-type]

    def _take_outcomes(self, model: Any, outcomes: Outcomes) -> None:
        model.take_outcomes(outcomes)

    def _reconfigure(self, model: Any) -> None:
        pass

    def _forget_silent(self) -> None:
        """Forget nothing: horizons are shorter than the pauses here."""

    def _advance(self, model: Any, clock: int) -> None:
        pass


class World:
    """Two logs of one partition, drawn from a seed."""

    def __init__(self, rng: random.Random, like: "World | None" = None) -> None:
        self.horizon, self.early = rng.randrange(1, 40), rng.randrange(0, 15)
        if like is not None:
            self.horizon, self.early = like.horizon, like.early
        count = rng.randrange(5, 60)
        ids = [f"i{n}" for n in range(rng.choice([3, count]))]
        self.predictions = self._log(rng, count, ids, self._prediction)
        self.feedback = self._log(rng, count, ids, self._feedback)

    def _log(self, rng: random.Random, count: int, ids: list[str], make: Any) -> list[Raw]:
        records, at, offset = [], START_MS, 0
        for _ in range(count):
            at += rng.randrange(0, 4)
            # Append times fall back now and then, and offsets leave room as transactions do.
            offset += 1 if rng.random() < 0.9 else 2
            value = rng.choice(POISON) if rng.random() < 0.05 else self._value(rng, make(rng, rng.choice(ids)))
            records.append(Raw(offset, at - rng.choice([0, 0, 0, FALLS_BACK_MS]), value))
        return records

    @staticmethod
    def _value(rng: random.Random, event: dict[str, Any]) -> bytes:
        return msgspec.json.encode(event | ({"ts": rng.choice(OWN_TIMES)} if rng.random() < 0.1 else {}))

    def _prediction(self, rng: random.Random, id: str) -> dict[str, Any]:
        return {"id": id, "model": rng.choice(MODELS), "version": rng.choice(["v1", "v2"]), "output": 1}

    def _feedback(self, rng: random.Random, id: str) -> dict[str, Any]:
        return {"id": id, "truth": rng.choice([0, 1])} | ({"model": rng.choice(MODELS)} if rng.random() < 0.5 else {})

    def config(self) -> Config:
        return parse(f"defaults: {{labels: {{horizon: {self.horizon}ms, early: {self.early}ms}}}}")

    def expected(self) -> set[Applied]:
        """Return (model, version, p) of every outcome: the mutual-first rule over the whole logs."""
        predictions, feedback = self.kept_predictions(), self.kept_feedback()
        found = set()
        for p in predictions:
            first = next((f for f in feedback if self._belong(p, f)), None)
            if first is None:
                continue
            same = [q for q in predictions if (q[1]["model"], q[1]["version"]) == (p[1]["model"], p[1]["version"])]
            if next(q for q in same if self._belong(q, first))[0] == p[0]:
                found.add((0, p[1]["model"], p[1]["version"], p[0]))
        return found

    def expected_counts(self) -> Counter[str]:
        """Return how often each code must be counted, by the rules over the whole logs.

        Feedback that answers nothing is counted once: whether it is called late or unmatched depends on what was still
        known when that was seen.
        """
        everything = self._clocked(self.predictions)
        predictions, feedback = self.kept_predictions(), self.kept_feedback()
        counts = self.refused()
        for number, event, at in everything:
            before = [q for q in predictions if q[0] < number]
            same = [q for q in before if all(q[1][name] == event[name] for name in ("id", "model", "version"))]
            counts["DUPLICATE"] += any(at - q[2] <= self.horizon + self.early for q in same)
        counts["REQUEST_LIMIT"] += sum(self._limited(everything)[1])
        counts["REQUEST_LIMIT"] += len(self._clocked(self.feedback)) - len(feedback)
        joined, last = self.expected(), max(raw.append_ts for raw in self.predictions)
        for f in feedback:
            first = [(p, next(g for g in feedback if self._belong(p, g))) for p in predictions if self._belong(p, f)]
            if any(g is f and (0, p[1]["model"], p[1]["version"], p[0]) in joined for p, g in first):
                continue
            if first:
                same_truth = first[0][1][1]["truth"] == f[1]["truth"]
                counts["DUPLICATE_FEEDBACK" if same_truth else "CONFLICTING_FEEDBACK"] += 1
            else:
                # The log of predictions has to show that none can follow.
                counts["UNANSWERING"] += last > f[2] + self.early
        return +counts

    def _limited(self, predictions: list[Clocked]) -> tuple[list[bool], list[bool]]:
        asked = [Asked(event["id"], event["model"], event["version"], at) for _, event, at in predictions]
        return kept_predictions(asked, lambda model: (self.horizon, self.early), ())

    def kept_predictions(self) -> list[Clocked]:
        everything = self._clocked(self.predictions)
        return [each for each, kept in zip(everything, self._limited(everything)[0], strict=True) if kept]

    def kept_feedback(self) -> list[Clocked]:
        everything = self._clocked(self.feedback)
        taken = kept_labels([Told(event["id"], event.get("model"), at) for _, event, at in everything], self.early)
        return [each for each, kept in zip(everything, taken, strict=True) if kept]

    def _belong(self, p: Any, f: Any) -> bool:
        named = "model" not in f[1] or f[1]["model"] == p[1]["model"]
        return p[1]["id"] == f[1]["id"] and named and -self.early <= f[2] - p[2] <= self.horizon

    @staticmethod
    def _clocked(log: list[Raw]) -> list[Clocked]:
        clock, found = -1, []
        for raw in log:
            clock = max(clock, raw.append_ts)
            if raw.value in POISON:
                continue
            event = msgspec.json.decode(raw.value or b"")
            if TS_MS_MIN <= event.get("ts", START_MS) <= raw.append_ts + DAY_MS:
                found.append((raw.offset, event, clock))
        return found

    def refused(self) -> Counter[str]:
        """Return how often each code has to be counted for what is no event."""
        found: Counter[str] = Counter()
        for kind, log in zip(KINDS, (self.predictions, self.feedback), strict=True):
            for raw in log:
                event = decode_value(kind, raw.value)
                if isinstance(event, Rejection):
                    found[event.code] += 1
                elif event.ts is not None and event.ts > raw.append_ts + DAY_MS:
                    found[RejectCode.FUTURE_TS] += 1
        return found


class Driver:
    """One reader with what its process would do around it."""

    def __init__(self, site: "Site", position: Position) -> None:
        self.site = site
        self.reader = site.new_reader(position)
        self.sent = True

    def read(self, rng: random.Random) -> None:
        """Give a few records of either log, and let the reader go as far as it can or wants to."""
        logs = self.site.world.predictions, self.site.world.feedback
        for side in (PREDICTIONS, FEEDBACK):
            first = bisect_left(logs[side], self.reader.next_offset(side), key=lambda raw: raw.offset)
            new = logs[side][first : first + rng.randrange(0, 6)]
            self.reader.give(side, source_records_of(new))
            end = logs[side][-1].offset + 1
            if rng.random() < 0.2 and not new and self.reader.next_offset(side) < end and self.reader.filling:
                self.site.reached["waits_for_window"] += 1
        # A broker's end of log is old news as soon as it is told, so a reader may wrongly believe that it is caught up.
        believed = (rng.random() < 0.5, rng.random() < 0.5)
        self.reader.advance(believed, rng.randrange(1, 12))

    def flush(self, rng: random.Random, *, cut_off: bool) -> None:
        """Send batches; some ledger partitions may never get theirs, and then the reader is thrown away."""
        if self.reader.filling or not (self.reader.moved or self.reader.waiting):
            return
        pieces = self.reader.flush_in_pieces()
        self.site.reached["pieces"] += len(pieces) - 1
        for batches in pieces:
            for k, batch in enumerate(batches):
                if cut_off and rng.random() < 0.5:
                    self.sent = False
                    self.site.reached["batch_lost"] += 1
                    continue
                self.site.append(k, batch)
            if not self.sent:
                # The next piece is sent only after this one is acknowledged.
                break
        if not self.sent:
            self.site.drop(self)

    def commit(self) -> None:
        if self.reader.filling or self.reader.moved or not self.sent:
            return
        self.site.committed = self.reader.position()


class Site:
    """Ledger partitions with their folds, the committed position, and the readers that are alive."""

    reader_class: type[SourceReader] = SourceReader
    driver_class: type[Driver] = Driver
    coverage_class: type[Coverage] = Coverage

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(self.rng)
        self.config = self.world.config()
        self.folds = [SeeingFold(self.config) for _ in range(LEDGER_PARTITIONS)]
        self.reached: Counter[str] = Counter()
        self.committed = Position(partitions=1)
        record = configuration_record(self.config)
        for fold in self.folds:
            fold.step(entry_of(msgspec.structs.replace(record, ledger_partitions=LEDGER_PARTITIONS)))
            fold.coverage[0] = self.coverage_class()
        self.owner = self.driver_class(self, self.committed)
        self.alive = [self.owner]

    def new_reader(self, position: Position) -> SourceReader:
        reader = self.reader_class(
            self.config, 0, position, ledger_partitions=LEDGER_PARTITIONS, route=lambda name: MODELS.index(name) % 3,
            in_pieces=True,
        )  # fmt: skip
        reader.fall_back_ms = FALLS_BACK_MS
        reader._join.window.limit_generations(4)
        return reader

    def append(self, k: int, batch: Batch) -> None:
        fold = self.folds[k]
        coverage = fold.coverage[0]
        if coverage.is_beyond(batch.base):
            self.reached["overlap"] += 1
        if not coverage.reaches(batch.base):
            self.reached["gap"] += 1
        fold.step(entry_of(batch))
        self.reached["corners"] = max(self.reached["corners"], len(fold.coverage[0].corners))

    def drop(self, driver: Driver) -> None:
        """A reader died; if it was the owner, another one starts from the commit."""
        self.alive.remove(driver)
        if driver is self.owner:
            self.owner = self.driver_class(self, self.committed)
            self.alive.append(self.owner)
            self.reached["restart"] += 1

    def step(self) -> None:
        rng, chance = self.rng, self.rng.random()
        driver = rng.choice(self.alive)
        if chance < 0.7:
            driver.read(rng)
        elif chance < 0.82:
            driver.flush(rng, cut_off=rng.random() < 0.15)
        elif chance < 0.92:
            driver.commit()
            if driver is not self.owner:
                self.reached["zombie_commit"] += 1
        elif chance < 0.96 and len(self.alive) < 4:
            # The owner is thought dead, and may live on.
            self.owner = self.driver_class(self, self.committed)
            self.alive.append(self.owner)
        else:
            self.drop(driver)

    def run(self, steps: int = 150) -> None:
        """Faults first; then the owner alone, to the end of both logs."""
        for _ in range(steps):
            self.step()
        ends = [log[-1].offset + 1 for log in (self.world.predictions, self.world.feedback)]
        for _ in range(1_000):
            for side, log in enumerate((self.world.predictions, self.world.feedback)):
                self.owner.reader.give(side, source_records_of(log))
            self.owner.reader.advance((True, True), 10_000)
            self.owner.flush(self.rng, cut_off=False)
            if [self.owner.reader.next_offset(side) for side in (0, 1)] == ends and not self.owner.reader.moved:
                return
        raise AssertionError("no progress")

    def applied(self) -> Counter[Applied]:
        found: Counter[Applied] = Counter()
        for fold in self.folds:
            for name, model in fold.models.items():
                for (version, position), count in model.applied.items():  # type: ignore[attr-defined]
                    found[0, name, version, position] += count
        return found

    def rejected(self) -> Counter[str]:
        return sum((fold.rejected for fold in self.folds), Counter())


class Verdict(msgspec.Struct):
    """What went wrong in a run."""

    lost: int = 0
    doubled: int = 0
    phantoms: int = 0
    gaps: int = 0
    miscounted: int = 0
    overrun: int = 0

    @property
    def clean(self) -> bool:
        return not any(msgspec.structs.astuple(self))


def verdict_of(site: Site) -> Verdict:
    """Compare what was applied with the oracle."""
    expected, applied = site.world.expected(), site.applied()
    return Verdict(
        lost=len(expected - set(applied)),
        doubled=sum(count > 1 for count in applied.values()),
        phantoms=len(set(applied) - expected),
        gaps=site.reached["gap"],
        miscounted=miscounted(site),
    )


def miscounted(site: Site) -> int:
    """Return by how much the counts are wrong."""
    counts, rejected = site.world.expected_counts(), site.rejected()
    rejected["UNANSWERING"] = rejected.pop("UNMATCHED_FEEDBACK", 0) + rejected.pop("LATE_FEEDBACK", 0)
    # What the simulator does to the logs is counted too.
    codes = {*rejected, *counts} - {"FOREIGN_BATCH", "GAP"}
    return sum(abs(rejected[code] - counts[code]) for code in codes)
