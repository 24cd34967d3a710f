"""What a ledger partition has to publish next: decisions to the journal, commands, and records that answer to its fold.

`due` is a function of the partition's state and of the time. Its service appends what `due` returns in the order of
the fields of `Output`, and applies each part to the state once the broker has acknowledged it: the journal comes before
the command that cites it.

While the broker acknowledges, the fold goes on. So everything is taken at one instant: all decisions so far, and the
commands that rest on no later ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import msgspec

from actions.facts import FleetFact
from actions.incidents import Alert, read_alert
from actions.journal import Decision, DecisionHead, decision_bytes, digest_of
from actions.reconcile import Timing, conflicting, due_commands
from streams.fold.fold import Fold
from streams.ledger.records import Trusted
from streams.rounds.rewind import Rewind
from unship.commands import Command
from unship.events import Epoch

ASK_AGAIN_MS = 600_000
"""Longer than the ledger may be behind: the reader of a range that is read again needs time to finish it."""

LOOK_FIRST = (
    "the ledger was cut off or made again; nothing of it is commanded until its records are back, or a new one is "
    "begun under another kafka.topics.prefix"
)


class LedgerConflict(Exception):
    """The log holds decisions or commands that this ledger cannot explain; an operator has to look first."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class Terms(msgspec.Struct, frozen=True):
    """What holds for all ledger partitions of a controller; without an `audience` it commands nobody.

    `trust` is what its `trust.json` holds, and `replaced` whether that was replaced while the controller ran.
    """

    audience: str | None
    timing: Timing
    config_digest: str
    trust: Trusted | None = None
    replaced: bool = False


class Output(msgspec.Struct, frozen=True):
    """What is to be appended now; `reproduced` names the models whose journalled decision the fold has led to again."""

    decisions: list[Decision] = []
    commands: list[Command] = []
    facts: list[FleetFact] = []
    configuration: bool = False
    rewinds: list[Rewind] = []
    reproduced: set[str] = set()
    trust: Trusted | None = None
    alerts: list[Alert] = []


class Sent(msgspec.Struct, frozen=True):
    """The records that answer to the fold and were appended, though they may not have come back yet."""

    facts: set[str] = set()
    configuration: bool = False
    trust: Trusted | None = None


class AlertQueue:
    """The alerts of a ledger partition that wait until `alerts` has them."""

    def __init__(self) -> None:
        self._known: set[tuple[str, int]] = set()
        self._waiting: list[Alert] = []

    @property
    def waiting(self) -> bool:
        """Return whether any alert waits."""
        return bool(self._waiting)

    def read(self, alerts: Iterable[Alert]) -> None:
        """Note what the topic holds."""
        self._known = {(alert.incident, alert.ts) for alert in alerts}

    def add(self, alerts: Iterable[Alert]) -> None:
        """Take what the fold led to, save what the topic holds."""
        self._waiting += [alert for alert in alerts if (alert.incident, alert.ts) not in self._known]

    def due(self) -> list[Alert]:
        """Return what is to be appended."""
        return list(self._waiting)

    def acknowledged(self, alerts: Iterable[Alert]) -> None:
        """Note that the topic has these."""
        taken = {(alert.incident, alert.ts) for alert in alerts}
        self._waiting = [alert for alert in self._waiting if (alert.incident, alert.ts) not in taken]


class LedgerState:
    """One ledger partition as its controller knows it: the fold, and what journal and commands hold of its models."""

    def __init__(self, number: int, fold: Fold) -> None:
        self.number = number
        self.fold = fold
        # The end that the ledger had on take-over; unknown before the broker was asked for it.
        self.goal = sys.maxsize
        self.forged = 0
        self.published: dict[str, Command] = {}
        self.journalled: dict[str, tuple[Epoch, str]] = {}
        # Models with a decision in the journal that the fold has not reproduced.
        self.unreproduced: set[str] = set()
        self.decided: list[Decision] = []
        self.journalling = False
        self.alerts = AlertQueue()
        # When each gap was last asked to be read again, in milliseconds.
        self.rewound: dict[int, int] = {}
        self.sent = Sent()

    @property
    def caught_up(self) -> bool:
        """Return whether everything was folded that the ledger had on take-over."""
        return self.fold.offset >= self.goal

    @property
    def behind(self) -> bool:
        """Return whether the fold is ahead of the journal, or has not reached the end that the ledger had."""
        return bool(self.decided) or self.journalling or self.alerts.waiting or not self.caught_up

    # Take-over

    def restore(self, fold: Fold) -> None:
        """Go on from a snapshot."""
        self.fold = fold

    def commands_read(self, commands: Iterable[Command], forged: int) -> None:
        """Note the newest command of each model that the control topic holds, and how many records of it are forged."""
        self.published = {command.model: command for command in commands}
        self.forged = forged

    def alerts_read(self, values: Iterable[bytes | None]) -> None:
        """Note the records of `alerts` that are there already: what the fold leads to again is not appended twice."""
        self.alerts.read(alert for value in values if (alert := read_alert(value)) is not None)

    def decision_read(self, decision: Decision | DecisionHead, value: bytes) -> None:
        """Note a decision that the journal holds; the newest record of a model is given last."""
        self.journalled[decision.model] = (decision.epoch, digest_of(value))

    def expect(self, goal: int) -> None:
        """Note where the ledger ends, which was asked for after the journal and the commands were read.

        Raises:
            LedgerConflict: journal or commands hold an epoch of a record that the ledger does not have.
        """
        self.goal = goal
        newest = {model: epoch for model, (epoch, _) in self.journalled.items()}
        self.unreproduced = {model for model, epoch in newest.items() if epoch[1] >= self.fold.offset}
        for model, command in self.published.items():
            newest[model] = max(newest.get(model, command.epoch), command.epoch)
        for model, epoch in sorted(newest.items()):
            if epoch[1] >= goal:
                raise LedgerConflict(
                    self.number,
                    f"ledger partition {self.number} ends at {goal}, and {model} was decided or "
                    f"commanded at epoch {list(epoch)}: {LOOK_FIRST}",
                )

    # Rounds

    def folded(self) -> None:
        """Keep the decisions and the alerts of the record that was folded last."""
        self.decided += self.fold.written
        self.alerts.add(self.fold.alerts)

    def take(self, output: Output) -> None:
        """Note that an output is on its way, and with it every decision so far."""
        self.decided = []
        self.journalling = bool(output.decisions)

    def decisions_acknowledged(self, output: Output) -> None:
        """Note that the journal has the decisions of an output."""
        self.journalling = False
        self.unreproduced -= output.reproduced
        for decision in output.decisions:
            self.decision_read(decision, decision_bytes(decision))

    def acknowledged(self, output: Output, now_ms: int) -> None:
        """Note that the broker has everything of an output of a partition that is caught up."""
        self.published |= {command.model: command for command in output.commands}
        self.alerts.acknowledged(output.alerts)
        facts = (self.sent.facts & self.fold.fleet.owed.keys()) | {fact.decision for fact in output.facts}
        self.sent = Sent(facts, True, output.trust or self.sent.trust)
        known = {number: at for number, at in self.rewound.items() if number in self.fold.gaps}
        self.rewound = known | {rewind.partition: now_ms for rewind in output.rewinds}


def due(state: LedgerState, terms: Terms, now_ms: int) -> Output:
    """Return what a ledger partition has to append now. Before it is caught up, that is decisions only.

    Raises:
        LedgerConflict: journal or commands hold what this ledger does not lead to.
    """
    decisions, reproduced = _journal(state)
    if not state.caught_up:
        return Output(decisions, reproduced=reproduced)
    for model in sorted(state.unreproduced - reproduced):
        raise LedgerConflict(
            state.number,
            f"ledger partition {state.number} does not lead to the decision of epoch "
            f"{list(state.journalled[model][0])} of {model}, which the journal holds: {LOOK_FIRST}",
        )
    facts = [fact for name, fact in state.fold.fleet.owed.items() if name not in state.sent.facts]
    another = not state.sent.configuration and state.fold.config_digest != terms.config_digest
    trust = terms.trust
    if trust is None or trust == state.sent.trust or not state.fold.copies.needs(trust, replaced=terms.replaced):
        trust = None
    commands, rewinds = _commands(state, terms, now_ms), _rewinds(state, now_ms)
    return Output(decisions, commands, facts, another, rewinds, reproduced, trust, state.alerts.due())


def _journal(state: LedgerState) -> tuple[list[Decision], set[str]]:
    """Return the decisions that the journal does not have, and the models of which it has the newest one."""
    new: list[Decision] = []
    reproduced: set[str] = set()
    for decision in state.decided:
        epoch, digest = state.journalled.get(decision.model, ((-1, -1, -1), ""))
        if decision.epoch > epoch:
            new.append(decision)
        elif decision.epoch == epoch:
            if digest_of(decision_bytes(decision)) != digest:
                raise LedgerConflict(
                    state.number,
                    f"decision {decision.id} of {decision.model}: the journal holds another one of epoch "
                    f"{list(epoch)}; compare them with: unship audit",
                )
            reproduced.add(decision.model)
    return new, reproduced


def _commands(state: LedgerState, terms: Terms, now_ms: int) -> list[Command]:
    if terms.audience is None:
        return []
    desired = state.fold.commanded()
    published: Mapping[str, Command] = state.published
    for model in conflicting(desired, published):
        raise LedgerConflict(
            state.number,
            f"{model}: control holds epoch {list(published[model].epoch)}, ledger partition "
            f"{state.number} explains {list(desired[model].epoch)} at most: {LOOK_FIRST}",
        )
    return due_commands(desired, published, terms.audience, now_ms, terms.timing)


def _rewinds(state: LedgerState, now_ms: int) -> list[Rewind]:
    """Return what to read again: gaps that were not requested yet, and those that are still there long after that."""
    found = []
    for number in sorted(state.fold.gaps):
        asked_at = state.rewound.get(number)
        if asked_at is None or now_ms - asked_at >= ASK_AGAIN_MS:
            coverage = state.fold.coverage[number]
            corner = (min(p for p, _ in coverage.corners), min(f for _, f in coverage.corners))
            found.append(Rewind(number, corner, state.fold.offset, coverage.incarnation))
    return found
