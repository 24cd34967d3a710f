"""Count who answered with what since a command, and judge each replica by its own answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from actions.facts import ReplicaChange
from actions.replicas import FORGET_MS, REPLICAS_MAX, Replica, Replicas
from unship.events import Epoch, Prediction

SHARES_MAX = 1_000
"""Kinds of answers that are counted apart: who may write predictions names versions and epochs freely."""


class Kind(NamedTuple):
    """What answers are counted by."""

    role: str
    version: str
    epoch: Epoch | None


class Share(msgspec.Struct):
    """Hold how many answers of a kind there were, and when, in milliseconds of append times."""

    count: int
    first: int
    last: int


class Answered(msgspec.Struct):
    """Hold the live answers of one replica: how many, and the newest kind with the time of its newest answer."""

    count: int
    version: str
    epoch: Epoch | None
    at: int


class Answers:
    """Count the answers of one model; they are taken in the order of append times.

    `others` are answers of further kinds, `unnamed` live ones without a replica's name.
    """

    def __init__(self) -> None:
        self.shares: dict[Kind, Share] = {}
        self.replicas: dict[str, Answered] = {}
        self.others = self.unnamed = 0
        self._changes: dict[str, list[ReplicaChange]] = {}

    def take(self, event: Prediction, at: int) -> None:
        """Take an answer with its append time."""
        kind = Kind(event.role, event.version, event.epoch)
        share = self.shares.get(kind)
        if share is not None:
            share.count, share.last = share.count + 1, at
        elif len(self.shares) < SHARES_MAX:
            self.shares[kind] = Share(1, at, at)
        else:
            self.others += 1
        if event.role != "live":
            return
        if event.replica is None:
            self.unnamed += 1
            return
        known = self.replicas.get(event.replica)
        if known is None:
            if len(self.replicas) >= REPLICAS_MAX:
                self.others += 1
                return
            self.replicas[event.replica] = Answered(1, event.version, event.epoch, at)
        else:
            changed = (known.version, known.epoch) != (event.version, event.epoch)
            known.count, known.version, known.epoch, known.at = known.count + 1, event.version, event.epoch, at
            if not changed:
                return
        self._note(event.replica, event.version, event.epoch, at)

    def _note(self, replica: str, version: str, epoch: Epoch | None, at: int) -> None:
        changes = self._changes.setdefault(replica, [])
        changes.append(ReplicaChange(replica, True, "serving", version, epoch, None, at, ("predictions", 0, 0)))
        if len(changes) > CHANGES_MAX:
            # The first answers after the command are kept, and the newest ones.
            del changes[CHANGES_MAX // 2]

    def proven(self, known: Mapping[str, Replica], now: int) -> dict[str, Replica]:
        """Return the living replicas with what they acknowledged and what their answers since the command show.

        Args:
            known: what is known of replicas by their acks, and by earlier answers.
            now: the clock of append times, in milliseconds.
        """
        found = {}
        for name in sorted({*known, *self.replicas}):
            replica = known.get(name) or Replica()
            answered = self.replicas.get(name)
            if answered is not None:
                replica = _by_answers(replica, [*self._changes[name], _newest(name, answered)])
            if replica.heard >= now - FORGET_MS:
                found[name] = replica
        return found


CHANGES_MAX = 64
"""Changes from one kind of answers to another that are kept of a replica: a few returns show two processes."""


def _newest(name: str, answered: Answered) -> ReplicaChange:
    place = "predictions", 0, 0
    return ReplicaChange(name, True, "serving", answered.version, answered.epoch, None, answered.at, place)


def _by_answers(replica: Replica, changes: list[ReplicaChange]) -> Replica:
    """Return a replica of which all answers are these; its acks stay."""
    acked = Replica(
        acked=replica.acked,
        refused=replica.refused,
        ready=[*replica.ready],
        unable=[*replica.unable],
        heard=replica.heard,
        since=replica.since,
    )
    followed = Replicas({changes[0].replica: acked})
    numbered = [
        msgspec.structs.replace(change, place=("predictions", 0, number)) for number, change in enumerate(changes)
    ]
    followed.take(numbered, 0, lambda epoch: None, Counter())
    return followed.known[changes[0].replica]
