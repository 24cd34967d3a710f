"""Follow a model's replicas: what they acknowledged, what their answers show, and what follows from both.

There are two signs of a replica. Its acks report how far it has come with a command; its predictions carry the version
that answered and the epoch it answered under. The second is the proof, because it is the work itself, so an ack is
accepted only until the replica answers. Everything here is a function of the ledger's `ReplicaFacts`: repeats are
dropped by the place they came from, and what is older than what is known changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from actions.facts import ReplicaChange
from unship.budgets.table import REPLICAS, VERSIONS_OF_REPLICA
from unship.events import Epoch
from unship.rejections import RejectCode

#: Replicas of one model that are followed at a time.
REPLICAS_MAX = REPLICAS.limit
T = TypeVar("T")
#: A replica that goes on as before is written down again after this time, so that the ledger knows that it lives.
RESTATE_MS = 600_000
#: A replica of which nothing was written for this long is gone.
FORGET_MS = 3_600_000
#: A version that answered within this time is loaded, whatever acks claim.
ANSWERS_PROVE_MS = 600_000
#: Requests under way while a replica switches are still answered by the old version; for this long after its ack they
#: do not contradict it.
SETTLE_MS = 5_000
#: So many returns to an earlier epoch are no slow request any more.
RETURNS_MIN = 2
#: Versions that are remembered for each replica, as held ready or as refused; the newest stay.
VERSIONS_MAX = VERSIONS_OF_REPLICA.limit
#: Replicas that ended in order and are still shown, of one model.
LEFT_MAX = 20
#: Refusals that concern the version. The others concern the command, its signature or its time.
OF_THE_VERSION = ("LOAD_FAILED", "UNREGISTERED_ARTIFACT", "QUARANTINED")


class Acked(msgspec.Struct, frozen=True):
    """Hold what a replica reports of itself: since when, and when it last did."""

    version: str | None
    stage: str
    epoch: Epoch
    since: int
    at: int


class Shown(msgspec.Struct, frozen=True):
    """Hold what a replica's own live predictions show, and when they last did."""

    version: str
    epoch: Epoch | None
    at: int


class Refused(msgspec.Struct, frozen=True):
    """Hold the newest command a replica refused, and why."""

    epoch: Epoch
    code: str | None
    at: int


class Left(msgspec.Struct, frozen=True):
    """Hold what a replica that ended in order served until then, and when that was."""

    version: str | None
    epoch: Epoch
    at: int


class Returns(msgspec.Struct, frozen=True):
    """Hold how often a replica answered under an earlier epoch again, and the newest such answer.

    One process never does, apart from requests that were under way, because its epoch never falls.
    """

    version: str
    epoch: Epoch
    at: int
    times: int


class Fault(msgspec.Struct, frozen=True):
    """State what a replica does instead of what is desired: the kind in one word, and in a sentence.

    | kind | meaning |
    |---|---|
    | `refused` | it refused the command, by `code` |
    | `loading` | it has the command, and still loads the version |
    | `lying` | it acknowledged the version, and answers with another one or under another epoch |
    | `forked` | it answers under two epochs in turn, so two processes have its name |
    | `other` | it serves another version, or under another epoch, as it acknowledged |
    """

    kind: str
    why: str
    code: str | None = None


class Replica(msgspec.Struct):
    """Hold one replica. `ready` are versions it has loaded, `unable` those it could not serve, by its newest report;
    the next two fields are the times of its newest record and of its first one, in milliseconds. `highest` is its first
    answer under the highest epoch, `returns` what it answered under lower ones afterwards."""

    acked: Acked | None = None
    shown: Shown | None = None
    refused: Refused | None = None
    ready: list[str] = []
    unable: list[str] = []
    heard: int = -1
    since: int = -1
    highest: Shown | None = None
    returns: Returns | None = None

    def serves(self) -> tuple[str | None, Epoch | None]:
        """Return the version that serves and its epoch, by the replica's newest ack or answer.

        >>> replica = Replica(Acked("v41", "serving", (0, 9, 0), 50, 90), Shown("v42", (0, 3, 0), 60))
        >>> replica.serves()
        ('v41', (0, 9, 0))
        >>> replica.shown = Shown("v42", (0, 3, 0), 6_000)
        >>> replica.serves()
        ('v42', (0, 3, 0))
        """
        acked, shown = self.acked, self.shown
        if shown is not None and (acked is None or shown.at >= acked.since + SETTLE_MS):
            return shown.version, shown.epoch
        return (None, None) if acked is None else (acked.version, acked.epoch)

    def stage(self) -> str | None:
        """Return the newest stage it acknowledged; `serving` where only its answers are known."""
        acked, refused = self.acked, self.refused
        if refused is not None and (acked is None or refused.at > acked.at):
            return "refused"
        if acked is not None:
            return acked.stage
        return "serving" if self.shown is not None else "staged" if self.ready else None


class Replicas(msgspec.Struct):
    """Hold all replicas of a model, the one written down last at the end; `covered` is the newest offset read of each
    log. `refusing` has those that refused an order of this ledger as older than what they know, and its epoch. In a
    `recorded` past there is nobody to serve anything. `left` has those that ended in order, the last of them at the
    end: nothing is expected of them."""

    known: dict[str, Replica] = {}
    covered: dict[str, int] = {}
    refusing: dict[str, Epoch] = {}
    recorded: bool = False
    left: dict[str, Left] = {}

    def record(self, *, recorded: bool) -> None:
        """Take it that the past is read from a recording of sources, or that it is not."""
        self.recorded = recorded

    def alive(self, now: int) -> Iterator[tuple[str, Replica]]:
        """Yield the replicas of which something was written lately; `now` is the source clock."""
        return ((name, replica) for name, replica in self.known.items() if replica.heard >= now - FORGET_MS)

    def take(
        self,
        changes: Iterable[ReplicaChange],
        now: int,
        ordered: Callable[[Epoch], str | None],
        counts: Counter[str],
        limit: int = REPLICAS_MAX,
    ) -> None:
        """Apply what changed.

        Args:
            changes: in the order of their lines.
            now: the source clock, in milliseconds.
            ordered: gives the version that an epoch's command asks for.
            counts: gets one `REPLICA_LIMIT` for each replica that is forgotten to make room.
            limit: how many replicas are followed.
        """
        self._forget(now)
        for change in changes:
            log = f"{change.place[0]}/{change.place[1]}"
            if change.place[2] < self.covered.get(log, 0):
                continue
            self.covered[log] = change.place[2] + 1
            replica = self.known.pop(change.replica, None)
            self.left.pop(change.replica, None)
            if change.stage == "left":
                self._leave(change, replica)
                continue
            if replica is None and len(self.known) >= limit:
                self.make_room(counts)
            # At the end again, so that those of which nothing was written for longest come first.
            replica = self.known[change.replica] = replica or Replica(since=change.at)
            replica.heard = max(replica.heard, change.at)
            wanted = ordered(change.epoch or (0, 0, 0))
            if change.code == "REGRESSION" and change.epoch is not None and wanted is not None:
                self.refusing[change.replica] = change.epoch
            elif change.code is None and wanted is not None:
                self.refusing.pop(change.replica, None)
            if change.shown:
                _show(replica, change)
            else:
                _acknowledge(replica, change, wanted)

    def _leave(self, change: ReplicaChange, replica: Replica | None) -> None:
        """Forget a replica that ended in order, so that its silence means nothing; not one that began again since."""
        if replica is not None and replica.acked is not None and change.at < replica.acked.at:
            self.known[change.replica] = replica
            return
        self.refusing.pop(change.replica, None)
        self.left[change.replica] = Left(change.version, change.epoch or (0, 0, 0), change.at)
        if len(self.left) > LEFT_MAX:
            del self.left[next(iter(self.left))]

    def make_room(self, counts: Counter[str]) -> None:
        """Forget the replica that is silent for longest; one that lasts stays before those that came just now."""
        self._drop(longest_silent(self.known, lambda replica: replica.heard < replica.since + RESTATE_MS))
        counts[RejectCode.REPLICA_LIMIT] += 1

    def refuse(self, now: int, epoch: Epoch) -> bool:
        """Return whether more of the living replicas refuse the order of an epoch than obey one of this ledger.

        The epochs that they claim to know are not signed, and one stranger may claim any.
        """
        if epoch not in self.refusing.values():
            return False
        alive = dict(self.alive(now))
        refusing = {name for name in alive if self.refusing.get(name) == epoch}
        served = (replica.serves()[1] for name, replica in alive.items() if name not in refusing)
        return len(refusing) > sum(other is not None and other <= epoch for other in served)

    def begin_incarnation(self, topic: str, partition: int) -> None:
        """Forget how far a log was read: its offsets mean other records in a new incarnation."""
        self.covered.pop(f"{topic}/{partition}", None)

    def _forget(self, now: int) -> None:
        while self.left and next(iter(self.left.values())).at < now - FORGET_MS:
            del self.left[next(iter(self.left))]
        while self.known:
            name = next(iter(self.known))
            if self.known[name].heard >= now - FORGET_MS:
                return
            self._drop(name)

    def _drop(self, name: str) -> None:
        del self.known[name]
        self.refusing.pop(name, None)


def longest_silent(known: Mapping[str, T], is_new: Callable[[T], bool]) -> str:
    """Return which replica to forget of those in the order of their newest records: a new one if there is any.

    Names that are invented by the thousand appear once each, and those that answer for a while stay.

    >>> longest_silent({"r-1": 20, "x-1": 0, "x-2": 1}, lambda age: age < 10), longest_silent({"r-1": 20}, bool)
    ('x-1', 'r-1')
    """
    return next((name for name, each in known.items() if is_new(each)), next(iter(known)))


def _show(replica: Replica, change: ReplicaChange) -> None:
    assert change.version is not None
    _hold_ready(replica, change.version)
    if change.stage == "serving" and (replica.shown is None or change.at >= replica.shown.at):
        before, replica.shown = replica.shown, Shown(change.version, change.epoch, change.at)
        _note_return(replica, before, replica.shown)


def _note_return(replica: Replica, before: Shown | None, now: Shown) -> None:
    """Note the first answer under the highest epoch, and each return to a lower one after requests under way ended."""
    highest = replica.highest
    if now.epoch is None:
        return
    if highest is None or highest.epoch is None or now.epoch > highest.epoch:
        replica.highest, replica.returns = now, None
        return
    late = now.epoch < highest.epoch and now.at >= highest.at + SETTLE_MS
    if late and before is not None and before.epoch == highest.epoch:
        times = 0 if replica.returns is None else replica.returns.times
        replica.returns = Returns(now.version, now.epoch, now.at, times + 1)


def _acknowledge(replica: Replica, change: ReplicaChange, wanted: str | None) -> None:
    """Take an ack; `wanted` is the version that its epoch's command asks for."""
    epoch = change.epoch or (0, 0, 0)
    if change.stage == "refused":
        if replica.refused is None or change.at >= replica.refused.at:
            replica.refused = Refused(epoch, change.code, change.at)
        if wanted is not None and change.code in OF_THE_VERSION:
            replica.ready = [version for version in replica.ready if version != wanted]
            replica.unable = _newest(replica.unable, wanted)
        return
    if change.stage == "staged" and wanted is not None:
        _hold_ready(replica, wanted)
    if change.stage == "serving" and change.version is not None:
        _hold_ready(replica, change.version)
    acked = replica.acked
    if acked is not None and change.at < acked.at:
        return
    same = acked is not None and (acked.version, acked.stage, acked.epoch) == (change.version, change.stage, epoch)
    since = acked.since if acked is not None and same else change.at
    replica.acked = Acked(change.version, change.stage, epoch, since, change.at)


def _hold_ready(replica: Replica, version: str) -> None:
    replica.unable = [other for other in replica.unable if other != version]
    replica.ready = _newest(replica.ready, version)


def _newest(versions: list[str], version: str) -> list[str]:
    return [*(other for other in versions if other != version), version][-VERSIONS_MAX:]


def unfit(replicas: Replicas, version: str, answered_at: int, now: int, horizon_ms: int) -> str | None:
    """Return why a version could not be served if it were ordered now, None if it could be.

    Args:
        replicas: of the model.
        version: the one to go back to.
        answered_at: when a prediction of it was last seen, by the source clock; -1 if never.
        now: the source clock, in milliseconds.
        horizon_ms: how long a prediction proves that a version is loaded somewhere, where no replica acknowledges.
    """
    if answered_at >= 0 and answered_at >= now - ANSWERS_PROVE_MS:
        return None
    alive = [replica for _, replica in replicas.alive(now)]
    answers = [version in replica.ready for replica in alive if version in replica.ready or version in replica.unable]
    if answers and not any(answers):
        return "every replica that answered refused it"
    reports = any(replica.acked is not None or replica.refused is not None for replica in alive)
    if replicas.recorded:
        return "it never answered in this recording" if not reports and answered_at < 0 else None
    if not reports and (answered_at < 0 or answered_at < now - horizon_ms):
        return "no replica acknowledges commands, and it has not answered within the horizon"
    return None


def lagging(replicas: Iterable[tuple[str, Replica]], serve: str | None, epoch: Epoch | None) -> dict[str, str]:
    """Return the replicas that do not obey, with what each does instead; empty means converged.

    A replica that has answered since it acknowledged is judged by its answers, any other by its ack. One that never
    acknowledged anything and whose answers carry no epoch follows no commands, so that only the version counts.

    Args:
        replicas: name and replica, of those that live.
        serve: the version that should serve; None while nothing is desired.
        epoch: that of the command; None where nothing is commanded, so that only versions are compared.

    >>> obeys = Replica(Acked("v41", "serving", (0, 9, 0), 50, 90), Shown("v41", (0, 9, 0), 60))
    >>> lies = Replica(Acked("v41", "serving", (0, 9, 0), 50, 90), Shown("v42", (0, 3, 0), 6_000))
    >>> lagging([("r-1", obeys), ("r-2", lies)], "v41", (0, 9, 0))
    {'r-2': 'acknowledged v41, but answers with v42 under epoch 0.3.0'}
    """
    if serve is None:
        return {}
    found = ((name, fault_of(replica, serve, epoch)) for name, replica in replicas)
    return {name: fault.why for name, fault in found if fault is not None}


def fault_of(replica: Replica, serve: str, epoch: Epoch | None) -> Fault | None:
    """Return what a replica does instead of serving a version under an epoch, None if it obeys; see `lagging`.

    >>> fault_of(Replica(Acked("v41", "verified", (0, 9, 0), 50, 90)), "v41", (0, 9, 0)).kind
    'loading'
    """
    acked, shown, refused = replica.acked, replica.shown, replica.refused
    if epoch is not None and (twice := _two_processes(replica)) is not None:
        return twice
    since = -1 if acked is None else acked.since
    if shown is not None and shown.at >= since:
        follows = acked is not None or refused is not None or shown.epoch is not None
        if shown.version == serve and (epoch is None or shown.epoch == epoch or not follows):
            return None
        if acked is None or shown.at >= since + SETTLE_MS:
            claims = acked is not None and (acked.stage, acked.version) == ("serving", serve)
            does = f"acknowledged {serve}, but answers" if claims else "answers"
            why = f"{does} with {shown.version} under {_named(shown.epoch)}"
            if not claims and refused is not None and refused.epoch == epoch:
                return Fault("refused", f"refused {_named(epoch)}: {refused.code}; {why}", refused.code)
            return Fault("lying" if claims else "other", why)
    if acked is None:
        if refused is None or epoch is None:
            return None
        return Fault("refused", f"refused {_named(refused.epoch)}: {refused.code}", refused.code)
    if acked.version == serve and (epoch is None or (acked.epoch, acked.stage) == (epoch, "serving")):
        return None
    if refused is not None and refused.epoch == epoch and refused.at >= acked.at:
        return Fault("refused", f"refused {_named(epoch)}: {refused.code}; {acked.version} serves", refused.code)
    if acked.stage == "verified" and acked.epoch == epoch:
        return Fault("loading", f"is loading {serve} for {_named(epoch)}; {acked.version} serves")
    return Fault("other", f"reports that {acked.version} serves ({acked.stage}, {_named(acked.epoch)})")


def _two_processes(replica: Replica) -> Fault | None:
    """Return the fault of a replica that answers under two epochs in turn; what was long ago is no fault any more."""
    highest, returns = replica.highest, replica.returns
    if highest is None or returns is None or returns.times < RETURNS_MIN or returns.at <= replica.heard - RESTATE_MS:
        return None
    return Fault(
        "forked",
        f"answers with {highest.version} under {_named(highest.epoch)} and with {returns.version} under "
        f"{_named(returns.epoch)} in turn: two processes have this name",
    )


def _named(epoch: Epoch | None) -> str:
    return "no epoch" if epoch is None else f"epoch {'.'.join(map(str, epoch))}"
