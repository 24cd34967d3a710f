"""Follow one act through the topics: into the ledger, through the fold, and to the replicas. A pure state machine.

| what is seen | where |
|---|---|
| the monitor has taken the act | its copy in the ledger, at some offset |
| the fold has applied it | the status is as of a later offset |
| it was refused | a decision with the epoch of that offset |
| replicas obey | the replicas in the status, updated by the newest acks |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from actions.control_records import is_authentic
from actions.convergence.conduct import Conduct, conducts_of, is_settling
from actions.convergence.progress import Progress, advance
from actions.journal import Decision, decode_decision
from actions.reasons import Reason
from console.commands.status import living
from streams.fold.status import ModelStatus
from streams.fold.status_records import PREFIX, folded_of, merged
from streams.ledger.entries import read_entry
from streams.ledger.records import Operated
from streams.recordings.lines import Taken
from unship.errors import RecordingError
from unship.signing import Trust


class Sight(msgspec.Struct, frozen=True):
    """Hold what is to be seen of an act.

    `state` is `sent` before the monitor has taken it, `taken` before its fold has applied it, `refused`, `waiting`, or
    `obeyed`. `decision` is what it led to, if to a decision; `conducts` is what each living replica does.
    """

    state: str
    progress: Progress = Progress()
    conducts: Mapping[str, Conduct] = {}
    decision: Decision | None = None
    status: ModelStatus | None = None


class Following:
    """Follow the act at a place of the topic `operator`; `partition` is the ledger partition of its model."""

    def __init__(self, model: str, place: tuple[int, int], partition: int, trust: Trust | None = None) -> None:
        self._model = model
        self._place = ("operator", *place)
        self._partition = partition
        self._trust = trust
        self._taken: tuple[int, int] | None = None
        self._records: dict[bytes, bytes | None] = {}
        self._acks: dict[bytes | None, Taken] = {}
        self._decisions: list[Decision] = []
        self._progress = Progress()
        self._has_decisions = False

    @property
    def topics(self) -> tuple[str, ...]:
        """Return the topics of which records are needed from here on."""
        if self._taken is None:
            return ("ledger", "decisions", "snapshots", "acks")
        return ("snapshots", "acks") if self._has_decisions else ("decisions", "snapshots", "acks")

    @property
    def needs_decisions(self) -> bool:
        """Return whether the fold has applied the act, so that its decision is in the journal if there is one."""
        return self._applied and not self._has_decisions

    @property
    def _applied(self) -> bool:
        return self._taken is not None and folded_of(self._records, self._partition) > self._taken[0]

    def take_decisions(self, records: Iterable[Taken]) -> None:
        """Take the rest of the journal, after the fold has applied the act."""
        self.take(records)
        self._has_decisions = True

    def take(self, records: Iterable[Taken]) -> None:
        """Take records in the order of their partitions; those of other models and topics are passed over."""
        for taken in records:
            if taken.topic == "snapshots" and taken.key is not None and taken.key.startswith(PREFIX):
                self._records[taken.key] = taken.value
            elif taken.topic == "acks":
                self._acks.pop(taken.key, None)
                self._acks[taken.key] = taken
            elif taken.topic == "decisions" and taken.key == self._model.encode():
                self._take_decision(taken)
            elif taken.topic == "ledger" and self._taken is None and taken.partition == self._partition:
                self._take_copy(taken)

    def _take_copy(self, taken: Taken) -> None:
        try:
            record = read_entry(taken.value).record
        except RecordingError:
            return
        if isinstance(record, Operated) and record.event.at is not None and record.event.at[:3] == self._place:
            self._taken = taken.offset, record.event.at[3]

    def _take_decision(self, taken: Taken) -> None:
        headers = tuple((name, value) for name, value in taken.headers if value is not None)
        if not is_authentic(taken.value, headers, self._trust):
            return
        try:
            self._decisions.append(decode_decision(taken.value or b""))
        except ValueError:
            return

    def look(self, now: int) -> Sight:
        """Return what is to be seen at a time, in milliseconds of the clock of append times."""
        if self._taken is None:
            return Sight("sent")
        offset, since = self._taken
        decision = self._decision(offset)
        if decision is not None and decision.reason is Reason.OPERATOR_REFUSED:
            return Sight("refused", decision=decision)
        status = merged(self._records)
        model = status.models.get(self._model)
        if model is None or not self._has_decisions:
            return Sight("taken", decision=decision)
        replicas = living(self._model, model, list(self._acks.values()), status.clock)
        epoch = model.epoch if model.commanded else None
        conducts = conducts_of(replicas, model.desired, epoch, since, now)
        self._progress = advance(self._progress, conducts, max(0, now - since))
        settling = any(is_settling(replica, epoch, now) for replica in replicas.values())
        state = "obeyed" if self._progress.converged and not settling else "waiting"
        return Sight(state, self._progress, conducts, decision, model)

    def _decision(self, offset: int) -> Decision | None:
        """Return the first decision that the act led to."""
        return next((each for each in self._decisions if each.epoch[1] == offset and each.evidence.operator), None)
