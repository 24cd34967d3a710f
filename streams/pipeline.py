"""The main path, to be read first.

    lines ──decode──> events ──join──> outcomes ──cut──> ledger records ──fold──> decisions

`join_step` turns source lines into ledger records; `fold_step` turns ledger records into decisions.
Both are functions of what they are given and of what they were given before: no clock, no chance, nothing read from
outside. A live service, a replay and an audit are drivers of these steps and differ only in where lines come from and
decisions go.

Inside `fold_step`, for each model (`streams.fold.model`): outcomes wait in cohorts until every label has had the same
time to come (`streams.evaluation.cohorts`), closed cohorts step rows of detectors (`detectors.rows.watch`,
`detectors.rows.bank`) and the comparison with the version that answers beside (`detectors.rows.concurrent`), findings
are collected (`streams.evaluation.findings`), and the policy's guards say what follows (`actions.policy`). A decision
is written (`actions.journal`), and the desired state changes (`actions.desired`).
"""

from collections.abc import Iterable, Iterator

import msgspec

from actions.journal import Decision
from streams.config.resolved import FOLD_VERSION, Config
from streams.fold.fold import Fold, SavedFold
from streams.join.line_cutter import SavedSources, Sources
from streams.ledger.records import Configured, Record
from unship.errors import RecordingError


class SavedPipeline(msgspec.Struct):
    """A `Pipeline` at rest, between two lines."""

    sources: SavedSources
    fold: SavedFold


class Pipeline:
    """The two steps and what they remember."""

    def __init__(self, config: Config, *, live: bool = False) -> None:
        self.config = config
        self.sources = Sources(config, live=live)
        self.fold = Fold(config)

    def save(self) -> SavedPipeline:
        """Return everything, to go on bit for bit."""
        return SavedPipeline(self.sources.save(), self.fold.save())

    def load(self, saved: SavedPipeline) -> None:
        """Take over what `save` returned; `self` must be new."""
        self.fold.load(saved.fold)
        self.sources.load(saved.sources)
        self.sources.timer_due = self.fold.due()


def configuration_record(config: Config) -> Configured:
    """Return the first record of a ledger: the configuration in force from there on."""
    return Configured(-1, FOLD_VERSION, config.digest(), config.recorded())


def configuration_of(record: Configured) -> Config:
    """Return the configuration that a ledger begins with.

    Raises:
        RecordingError: if it is none.
    """
    try:
        return msgspec.convert(record.config, Config)
    except msgspec.ValidationError as error:
        raise RecordingError(f"the ledger's configuration cannot be read: {error}") from error


def join_step(pipeline: Pipeline, lines: Iterable[bytes]) -> Iterator[Record]:
    """Join source lines and yield the ledger records they complete."""
    return with_fleet_facts(pipeline, pipeline.sources.feed(lines))


def with_fleet_facts(pipeline: Pipeline, records: Iterable[Record]) -> Iterator[Record]:
    """Yield records, and after each the `FleetFact` records that its decisions call for.

    The caller steps the fold with each record before it asks for the next one. A ledger that is read already holds
    these records where they were written, so it is never passed through here.
    """
    yield from _owed(pipeline)
    for record in records:
        yield record
        yield from _owed(pipeline)


def _owed(pipeline: Pipeline) -> Iterator[Record]:
    while pipeline.fold.fleet.owed:
        fact = next(iter(pipeline.fold.fleet.owed.values()))
        yield fact
        assert fact.decision not in pipeline.fold.fleet.owed, fact.decision


def fold_step(pipeline: Pipeline, record: Record) -> list[Decision]:
    """Apply one ledger record; return the decisions it leads to."""
    decisions = pipeline.fold.step(record)
    pipeline.sources.timer_due = pipeline.fold.due()
    return decisions
