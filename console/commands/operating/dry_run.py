"""Try an act out: fold the ledger to its end, apply the act there, and show what would follow; nothing is written.

The fold is that of the newest snapshot of the monitor, or the whole ledger where there is none that can be used. The
act then goes through the same code as in the monitor (`streams.fold.operator_acts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click
import msgspec
from msgspec import UNSET

from actions.desired import DesiredState
from actions.journal import Decision, decision_bytes
from actions.reasons import Reason
from actions.reconcile import Timing, command_of
from console.logs import configured_log, embedded_folder, kafka_access, open_topics
from console.progress import counting
from console.sentences import clean, sentence
from console.settings import Exit, Settings
from streams.config.resolved import Config
from streams.config.units import percent
from streams.fold.fold import Fold, LedgerMismatch, SavedFold
from streams.ledger.encoding import unpack
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Operated
from streams.recordings.lines import Topics
from streams.topics.partitioner import partition_of
from unship.commands import Command
from unship.errors import RecordingError
from unship.events import INTEGER_MAX, OperatorAct
from unship.log.embedded.read_only import ReadOnlyLog
from unship.log.kafka.access import SCHEME
from unship.log.link import Record


class Tried(msgspec.Struct, frozen=True):
    """Hold what an act would lead to as the ledger record `offset`: decisions, and a command where that changes."""

    offset: int
    decisions: list[Decision]
    before: DesiredState
    after: DesiredState
    command: Command | None

    @property
    def refused(self) -> str | None:
        """Return the sentence by which it would be refused, None if it would be followed."""
        for decision in self.decisions:
            if decision.reason is Reason.OPERATOR_REFUSED:
                return "" if decision.evidence.missing is UNSET else decision.evidence.missing
        return None


def try_out(fold: Fold, event: OperatorAct, audience: str, now: int) -> Tried:
    """Apply an act to a fold as if it were the next ledger record, appended at `now` (ms)."""
    name, offset = event.model, fold.offset
    model = fold.models.get(name)
    before = (
        DesiredState()
        if model is None
        else msgspec.msgpack.decode(msgspec.msgpack.encode(model.state.desired), type=DesiredState)
    )
    placed = msgspec.structs.replace(event, at=("operator", 0, INTEGER_MAX, now))
    decisions = [each for each in fold.step(entry_of(Operated(-1, placed))) if each.model == name]
    model = fold.models.get(name)
    if model is None:
        return Tried(offset, decisions, before, before, None)
    after = model.state.desired
    changed = model.commanded and after.epoch != before.epoch
    return Tried(
        offset, decisions, before, after, command_of(name, after, audience, now, Timing()) if changed else None
    )


def dry_run(settings: Settings, config: Config, event: OperatorAct, audience: str, now: int) -> Exit:
    """Print what an act would lead to now; FINDING if it would be refused."""
    source = configured_log(settings, config)
    with open_topics(settings, config, source) as topics:
        number = partition_of(event.model.encode(), topics.partitions("ledger"))
        fold = newest_fold(settings, config, topics, number)
    tried = try_out(fold, event, audience, now)
    click.echo(_json(event, tried) if settings.as_json else "\n".join(_lines(event, tried)))
    return Exit.GOOD if tried.refused is None else Exit.FINDING


def newest_fold(settings: Settings, config: Config, topics: Topics, number: int) -> Fold:
    """Return the fold of a ledger partition at its end.

    Raises:
        RecordingError: Neither a snapshot nor the ledger can be used.
    """
    first, end = topics.first("ledger", number), topics.ends().get(("ledger", number), 0)
    fold = Fold(config)
    for data in _saved(settings, config, number):
        try:
            restored = Fold(config)
            restored.load(data)
        except (ValueError, TypeError):
            continue
        if first <= restored.offset <= end:
            fold = restored
            break
    if not end:
        raise RecordingError("there is no ledger yet: nothing can be tried out before the monitor has run once")
    if fold.offset < first:
        raise RecordingError(
            f"the ledger begins at offset {first}, and no snapshot that can be used holds what came before"
        )
    with counting("ctl: ledger records", settings.quiet) as progress:
        while fold.offset < end and (page := topics.read("ledger", number, fold.offset)):
            for taken in page:
                fold.go_to(taken.offset)
                try:
                    fold.step(read_entry(taken.value))
                except LedgerMismatch as error:
                    raise RecordingError(str(error)) from error
            if progress is not None:
                progress(len(page))
    return fold


def _saved(settings: Settings, config: Config, number: int) -> Iterator[SavedFold]:
    """Yield the folds that the monitor saved, the newest first; what cannot be read is passed over."""
    if configured_log(settings, config).startswith(SCHEME):
        from streams.kafka.snapshots import read_snapshots

        for data in read_snapshots(kafka_access(settings, config), number):
            try:
                yield unpack(data, SavedFold)
            except (msgspec.MsgspecError, ValueError, TypeError):
                continue
        return
    from streams.embedded.monitor import SavedMonitor
    from streams.embedded.snapshots import load

    with closing(ReadOnlyLog(embedded_folder(settings, config))) as log:
        for _, data in load(_Kept(log), lambda remark: None):
            try:
                yield unpack(data, SavedMonitor).pipeline.fold
            except (msgspec.MsgspecError, ValueError, TypeError):
                continue


class _Kept:
    """The snapshots of a log that is only read."""

    def __init__(self, log: ReadOnlyLog) -> None:
        self.folder = log.folder
        self._latest = log.latest("snapshots")

    def newest(self, topic: str, key: bytes) -> Record | None:
        """Return the newest record of a key; `topic` is that of the snapshots."""
        return self._latest.get(key)


def _lines(event: OperatorAct, tried: Tried) -> Iterator[str]:
    name = clean(event.model)
    yield f"dry run: {event.act} {name} after ledger record {tried.offset - 1}; nothing was signed or written"
    for decision in tried.decisions:
        yield f"decision  {decision.reason}, {decision.action}: {sentence(decision)}"
    changes = list(_changes(tried.before, tried.after))
    yield "changes   " + (clean("; ".join(changes)) if changes else "nothing")
    command = tried.command
    if command is None:
        yield "command   none"
        return
    quarantine = ", ".join(clean(entry.version) for entry in command.quarantine) or "none"
    epoch = ".".join(map(str, command.epoch))
    yield f"command   serve {clean(command.serve)}, quarantine {quarantine}, action {command.action}, epoch {epoch}"


def _changes(before: DesiredState, after: DesiredState) -> Iterator[str]:
    """Yield what would be different, in words."""
    if before.serve != after.serve:
        yield f"{after.serve} serves instead of {before.serve}" if before.serve else f"{after.serve} serves"
    for word in ("held", "pinned", "stopped", "frozen"):
        if getattr(before.locks, word) != getattr(after.locks, word):
            yield word if getattr(after.locks, word) else f"no longer {word}"
    was, will = ({entry.version: None for entry in each.quarantine} for each in (before, after))
    yield from (f"{version} goes into quarantine" for version in will if version not in was)
    yield from (f"{version} leaves quarantine" for version in was if version not in will)
    if before.holdback.shares != after.holdback.shares:
        had, has = ({v: percent(share) for v, share in each.holdback.shares.items()} for each in (before, after))
        yield from (f"{version} answers {share}" for version, share in has.items())
        yield from (f"{version} answers no share any more" for version in had if version not in has)
    if before.proposal is not None and after.proposal is None:
        yield f"proposal {before.proposal.decision} is closed"
    if before.incarnation != after.incarnation:
        yield f"incarnation {after.incarnation} begins"


def _json(event: OperatorAct, tried: Tried) -> str:
    act = {name: value for name, value in msgspec.to_builtins(event).items() if name != "type"}
    found: dict[str, Any] = {"dry_run": True, "act": act, "after_ledger_record": tried.offset - 1}
    found |= {"refused": tried.refused, "changes": list(_changes(tried.before, tried.after))}
    found["decisions"] = [msgspec.Raw(decision_bytes(decision)) for decision in tried.decisions]
    found["command"] = None if tried.command is None else msgspec.to_builtins(tried.command)
    return msgspec.json.encode(found).decode()
