"""Lines through all stages, for tests that look at what comes out of some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from actions.journal import Decision
from streams.config.resolved import Config
from streams.fold.fold import Fold
from streams.join.partition import Raw
from streams.join.source_records import SourceRecords, source_records
from streams.ledger.entries import entry_of
from streams.ledger.records import Batch, Part, Record
from streams.pipeline import Pipeline, Step, configuration_record
from streams.recordings.arrivals import arrivals


def source_records_of(records: Sequence[Raw]) -> SourceRecords:
    """Return records as a reader takes them."""
    return source_records(
        [raw.offset for raw in records], [raw.append_ts for raw in records], [raw.value for raw in records]
    )


class Run:
    """A pipeline under a configuration, with everything that came out of it since the configuration's own record."""

    def __init__(self, config: Config) -> None:
        self.pipeline = Pipeline(config)
        self.began = list(self.pipeline.apply([configuration_record(config, numbered=True)]))
        self.steps: list[Step] = []

    def take(self, lines: Iterable[bytes]) -> list[Record]:
        """Join lines; return the records that they complete."""
        return self._keep(self.pipeline.take(arrivals(list(lines))))

    def rest(self) -> list[Record]:
        """End the input; return the records that are left."""
        return self._keep(self.pipeline.rest())

    def advance(self, ts: int) -> list[Record]:
        """Let the clock go to `ts` without a line; return the records of that."""
        return self._keep(self.pipeline.advance(ts))

    def _keep(self, steps: Iterable[Step]) -> list[Record]:
        new = list(steps)
        self.steps += new
        return [step.entry.record for step in new]

    @property
    def fold(self) -> Fold:
        return self.pipeline.fold

    @property
    def records(self) -> list[Record]:
        return [step.entry.record for step in self.steps]

    @property
    def ledger(self) -> list[Record]:
        """The records with that of the configuration."""
        return [*(step.entry.record for step in self.began), *self.records]

    @property
    def decisions(self) -> list[Decision]:
        return [decision for step in (*self.began, *self.steps) for decision in step.decisions]

    @property
    def counts(self) -> Counter[str]:
        """What was counted, in the ledger or not yet."""
        return counts_of(self.pipeline)

    @property
    def now(self) -> int:
        return self.pipeline.cutter.now


def run(config: Config, lines: Iterable[bytes], until: int | None = None) -> Run:
    """Run lines to their end, and the clock on to `until`."""
    made = Run(config)
    made.take(lines)
    made.rest()
    if until is not None:
        made.advance(until)
    return made


def counts_of(pipeline: Pipeline) -> Counter[str]:
    total = pipeline.cutter.join.counts() + pipeline.fold.counts()
    return Counter({str(reason): count for reason, count in total.items() if count})


def parts_of(records: Sequence[Record]) -> list[Part]:
    """Return the parts of all batches, in their order."""
    return [part for record in records if isinstance(record, Batch) for part in record.parts]


def step(fold: Fold, record: Record) -> list[Decision]:
    """Append a record to the ledger of a fold; return the decisions it leads to."""
    return fold.step(entry_of(record))
