"""Turn acks and predictions into changes at the replicas: only these go into the ledger.

A heartbeat, or the thousandth answer of the same replica with the same version under the same epoch, changes nothing
and is not written. What is written is a function of the lines alone, so that a replay from the sources writes the same.
"""

from __future__ import annotations

import sys
from collections.abc import Container
from typing import TypeAlias

import msgspec

from actions.facts import ReplicaChange
from actions.replicas import REPLICAS_MAX, RESTATE_MS, SETTLE_MS, VERSIONS_MAX, longest_silent
from unship.budgets.table import REPLICAS_OF_ALL
from unship.events import Ack, Epoch, Prediction

#: Replicas of all models that are remembered at a time.
REPLICAS_OF_ALL_MAX = REPLICAS_OF_ALL.limit
#: Topic, partition and offset.
Place: TypeAlias = tuple[str, int, int]


class ReplicaSeen(msgspec.Struct, gc=False):
    """Hold what was last written of one replica.

    `asked_at` is set by an ack with news: the first answer from then on is written whatever it shows,
    because it proves the ack or contradicts it.
    """

    version: str | None = None
    epoch: Epoch | None = None
    shown_at: int = -1
    asked_at: int = -1
    acked: tuple[str, str | None, Epoch] | None = None
    acked_at: int = -1
    refused: tuple[Epoch, str | None] | None = None
    refused_at: int = -1
    staged: tuple[str, ...] = ()
    since: int = -1

    def is_new(self) -> bool:
        """Return whether it was written down for the first time not long before the last."""
        return self.written_at() < self.since + RESTATE_MS

    def written_at(self) -> int:
        """Return when the replica was last written down."""
        return max(self.shown_at, self.acked_at, self.refused_at)


class SavedWatch(msgspec.Struct):
    """A `ReplicaWatch` at rest."""

    seen: dict[str, dict[str, ReplicaSeen]]
    waiting: list[tuple[str, ReplicaChange]]


class ReplicaWatch:
    """Collect changes until the next cut takes them.

    Of a replica that has no room any more everything is news again, so nothing is lost by forgetting it here. Where all
    models have too many, those that are not `named` in the configuration lose theirs first.
    """

    def __init__(self, limit: int | None = None, named: Container[str] = ()) -> None:
        self._limit = REPLICAS_MAX if limit is None else limit
        self._named = named
        self._count = 0
        self._seen: dict[str, dict[str, ReplicaSeen]] = {}
        self._waiting: dict[tuple[object, ...], tuple[str, ReplicaChange]] = {}

    def is_news(self, event: Prediction, at: int) -> bool:
        """Return whether `answered` has anything to do: mostly not, and this is asked of every prediction."""
        replicas = self._seen.get(event.model)
        seen = None if replicas is None else replicas.get(event.replica)  # type: ignore[arg-type]
        if seen is None:
            return True
        if event.role != "live":
            return event.version not in seen.staged
        if seen.version != event.version or seen.epoch != event.epoch:
            return True
        return at >= seen.shown_at + RESTATE_MS or 0 <= seen.asked_at <= at

    def news_from(self, event: Prediction, at: int, others: int) -> int | None:
        """Return from when on, after `at`, an answer like this one would be news; None if each one may be.

        Until then at most so many `others` are added.
        """
        if self.is_news(event, at):
            return None
        assert event.replica is not None
        if len(self._seen[event.model]) + others > self._limit or self._count + others > REPLICAS_OF_ALL_MAX:
            # It may be forgotten for another one.
            return None
        if event.role != "live":
            # That it was staged is written once.
            return sys.maxsize
        seen = self._seen[event.model][event.replica]
        due = seen.shown_at + RESTATE_MS
        return min(due, seen.asked_at) if seen.asked_at > at else due

    def answered(self, event: Prediction, place: Place, at: int) -> None:
        """Take a prediction that counted, with its place in the log and its append time."""
        assert event.replica is not None
        seen = self._of(event.model, event.replica, at)
        if event.role != "live":
            if event.version not in seen.staged:
                seen.staged = (*seen.staged, event.version)[-VERSIONS_MAX:]
                self._write(event.model, event, "staged", True, place, at)
            return
        if not self.is_news(event, at):
            return
        if seen.asked_at <= at:
            seen.asked_at = -1
        seen.version, seen.epoch, seen.shown_at = event.version, event.epoch, at
        self._write(event.model, event, "serving", True, place, at)

    def acknowledged(self, event: Ack, place: Place, at: int) -> bool:
        """Take an ack; return whether it has news."""
        seen = self._of(event.model, event.replica, at)
        if event.stage == "refused":
            refusal = event.epoch, event.code
            if refusal == seen.refused and at < seen.refused_at + RESTATE_MS:
                return False
            seen.refused, seen.refused_at = refusal, at
        else:
            claim = event.stage, event.serving, event.epoch
            if claim == seen.acked and at < seen.acked_at + RESTATE_MS:
                return False
            if claim != seen.acked:
                seen.asked_at = at + SETTLE_MS
            seen.acked, seen.acked_at = claim, at
        self._write(event.model, event, event.stage, False, place, at)
        return True

    @property
    def waiting(self) -> bool:
        """Return whether something changed since the last cut."""
        return bool(self._waiting)

    def take(self) -> dict[str, list[ReplicaChange]]:
        """Return what changed since the last call, by model in the order of names, changes in that of their lines."""
        found: dict[str, list[ReplicaChange]] = {}
        for model, change in self._waiting.values():
            found.setdefault(model, []).append(change)
        self._waiting.clear()
        return dict(sorted(found.items()))

    def _of(self, model: str, replica: str, at: int) -> ReplicaSeen:
        replicas = self._seen.get(model, {})
        seen = replicas.get(replica)
        if seen is None:
            if len(replicas) >= self._limit:
                self._forget_one_of(model)
            elif self._count >= REPLICAS_OF_ALL_MAX:
                self._forget_one_of(
                    next((name for name in self._seen if name not in self._named), next(iter(self._seen)))
                )
            seen = self._seen.setdefault(model, {})[replica] = ReplicaSeen(since=at)
            self._count += 1
        return seen

    def _forget_one_of(self, model: str) -> None:
        replicas = self._seen[model]
        del replicas[longest_silent(replicas, ReplicaSeen.is_new)]
        self._count -= 1
        if not replicas:
            del self._seen[model]

    def _write(self, model: str, event: Prediction | Ack, stage: str, shown: bool, place: Place, at: int) -> None:
        version = event.version if isinstance(event, Prediction) else event.serving
        code = event.code if isinstance(event, Ack) else None
        assert event.replica is not None
        change = ReplicaChange(event.replica, shown, stage, version, event.epoch, code, at, place)
        # Written last, so it comes last: of those before it, the one written longest ago is the first to be forgotten.
        replicas = self._seen[model] = self._seen.pop(model)
        replicas[event.replica] = replicas.pop(event.replica)
        key = model, event.replica, shown, stage, version, event.epoch, code
        self._waiting.pop(key, None)
        self._waiting[key] = model, change

    def save(self) -> SavedWatch:
        """Return everything, to go on after the same line."""
        return SavedWatch(self._seen, list(self._waiting.values()))

    def load(self, saved: SavedWatch) -> None:
        """Take over what `save` returned; `self` must be new."""
        self._seen = saved.seen
        self._count = sum(map(len, self._seen.values()))
        for model, change in saved.waiting:
            key = model, change.replica, change.shown, change.stage, change.version, change.epoch, change.code
            self._waiting[key] = model, change
