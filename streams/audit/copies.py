"""Compare the ledger's deployments, operators' acts and replica facts with the source records they were copied from."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from actions.facts import ReplicaChange
from streams.audit.differences import Difference, difference
from streams.audit.extent import Extent
from streams.config.units import DAY_MS
from streams.join.signed import read_control
from streams.ledger.records import Deployed, Operated, ReplicaFacts
from streams.recordings.lines import Place, Taken, Topics, place_of
from unship.codec import decode_value
from unship.events import Ack, Deployment, Event, OperatorAct, Prediction
from unship.log.packed import decode_values
from unship.rejections import Rejection
from unship.signing import SIGNATURE_HEADER, SignedBy, Trust
from unship.topics import EVENT_TOPICS

COPIED: Final = ("deployments", "operator")
SHOWN: Final = ("predictions", "acks")

REMEMBERED: Final = 100_000
"""More models or deployments than these are above the limits of the join, which then leaves some out."""


class Copies:
    """Reads both topics in the order of the ledger.

    `unsigned` counts acts whose signature cannot be checked, `unseen` copies whose source was not recorded.
    """

    def __init__(self, topics: Topics, trust: Trust | None, extent: Extent | None = None) -> None:
        self.topics = topics
        self.trust = trust
        self.extent = extent or Extent(topics)
        self.unsigned = self.unseen = 0
        self._acks: set[bytes | None] | None = None
        self._next: dict[Place, int] = {}
        self._pages: dict[Place, deque[Taken]] = {}
        self._seen: set[tuple[object, ...]] = set()

    def check(self, record: Deployed | Operated) -> Difference | None:
        """Compare a copy with its source, and check the records before it that were not copied."""
        event = record.event
        topic = "deployments" if isinstance(record, Deployed) else "operator"
        if event.at is None or event.at[0].rpartition(".")[2] != topic:
            return Difference(f"the copy from {topic}", "event.at", str(event.at), "a place there")
        _, partition, offset, _ = event.at
        place = (topic, partition)
        if isinstance(event, Deployment):
            self._seen.add(_content(event, record.signed_by))
        if offset < self._next.get(place, 0):
            # Several copiers may copy one record, each without a clock; the fold applies the first copy.
            twice = Difference(f"{topic}[{partition}]@{offset}", "its copies", "two", "one")
            return None if record.clock < 0 else twice
        left_out = self._pass(place, offset)
        if left_out is not None:
            return left_out
        taken = self._take(place, offset)
        if taken is None:
            if self.extent.should_hold(place, offset):
                return Difference(f"{topic}[{partition}]@{offset}", "the record", "absent", "present")
            self.unseen += 1
            return None
        return self._compare(taken, record)

    def passed(self, positions: dict[str, int]) -> Difference | None:
        """Check the records that a monitor has read and not copied: each must be a repeat, or rejected.

        Args:
            positions: How far each topic was read, as the ledger records it.
        """
        for topic in COPIED:
            if topic in positions and (found := self._pass((topic, 0), positions[topic])) is not None:
                return found
        return None

    def check_facts(self, record: ReplicaFacts) -> Difference | None:
        """Compare replica facts with the answers and acks that they were read from."""
        for change in record.changes:
            topic, partition, offset = change.place
            place = (topic, partition)
            if topic not in SHOWN:
                continue
            taken = self._shown(place, offset)
            if taken is None and topic == "acks":
                if self.extent.bare or not self.extent.from_start or self._has_ack(record.model, change.replica):
                    # Compaction has removed it where there is a newer ack of the same replica.
                    continue
                return Difference(
                    f"acks[{partition}]@{offset}", "the record, or a newer one of its replica", "absent", "present"
                )
            if taken is None and not self.extent.should_hold(place, offset):
                continue
            found = [] if taken is None else _shown(taken, change)
            if (record.model, change) not in found:
                source = found[0] if found else None
                shown = "absent" if source is None else {"model": source[0], "change": msgspec.to_builtins(source[1])}
                where = f"{topic}[{partition}]@{offset}, and the replica facts from it in the ledger"
                return difference(where, shown, {"model": record.model, "change": msgspec.to_builtins(change)})
        return None

    def _shown(self, place: Place, offset: int) -> Taken | None:
        if not self.extent.begins.get(place, offset + 1) <= offset < self.extent.end(place):
            return None
        return next((taken for taken in self.topics.read(*place, offset)[:1] if taken.offset == offset), None)

    def _has_ack(self, model: str, replica: str) -> bool:
        """Return whether there is an ack of a replica; with more of them than are in memory, it is assumed."""
        if self._acks is None:
            self._acks = set()
            for place in self.extent.places("acks"):
                for taken in self.extent.records(place):
                    self._acks.add(taken.key)
                    if len(self._acks) > REMEMBERED:
                        break
        return f"{model}/{replica}".encode() in self._acks or len(self._acks) > REMEMBERED

    def _compare(self, taken: Taken, record: Deployed | Operated) -> Difference | None:
        event, signed_by = record.event, record.signed_by
        source = decode_value(EVENT_TOPICS[taken.topic], taken.value)
        where = place_of(taken)
        if isinstance(source, Rejection):
            return Difference(where, "the record", str(source.code), "what the ledger has copied")
        source = msgspec.structs.replace(source, at=(taken.topic, taken.partition, taken.offset, taken.append_ts))
        if msgspec.structs.replace(event, at=(taken.topic, *(event.at or ())[1:])) != source:
            return difference(
                f"{where}, and its copy in the ledger", *(msgspec.to_builtins(e) for e in (source, event))
            )
        if signed_by is None and not isinstance(source, OperatorAct):
            return None
        if self.trust is None:
            self.unsigned += 1
            return None
        found, signer = self._read(taken)
        if isinstance(found, Rejection) or signer != signed_by:
            what = str(found.code) if isinstance(found, Rejection) else str(msgspec.to_builtins(signer))
            return Difference(where, "its signature", what, f"{msgspec.to_builtins(signed_by)}, as the ledger has it")
        return None

    def _read(self, taken: Taken) -> tuple[Event | Rejection, SignedBy | None]:
        headers = [(name, value or b"") for name, value in taken.headers]
        return read_control(taken.topic, taken.value, headers, self.trust, taken.append_ts)

    def _pass(self, place: Place, end: int) -> Difference | None:
        """Read up to `end`; return a difference for the first record that should have been copied."""
        while self._next.get(place, 0) < end and (taken := self._take(place, end - 1, whatever=True)) is not None:
            if self._should_be_copied(taken):
                return Difference(f"the copy of {place_of(taken)}", "the ledger record", "absent", "present")
        return None

    def _should_be_copied(self, taken: Taken) -> bool:
        if self.trust is None and any(name == SIGNATURE_HEADER for name, _ in taken.headers):
            # It may be one that the monitor refuses: expired, or for another installation.
            return False
        event, signer = self._read(taken)
        if isinstance(event, Rejection) or (event.ts is not None and event.ts > taken.append_ts + DAY_MS):
            return False
        if isinstance(event, Deployment):
            return _content(event, signer) not in self._seen and len(self._seen) < REMEMBERED
        return True

    def _take(self, place: Place, offset: int, *, whatever: bool = False) -> Taken | None:
        """Return the next record if its offset is `offset`, or with `whatever` at most that."""
        page = self._pages.setdefault(place, deque())
        if not page and self._next.get(place, 0) < (end := self.topics.ends().get(place, 0)):
            begin = max(self._next.get(place, 0), self.topics.first(*place))
            page.extend(self.topics.read(*place, begin) if begin < end else ())
        if not page or page[0].offset > offset or (page[0].offset < offset and not whatever):
            return None
        taken = page.popleft()
        self._next[place] = taken.offset + 1
        return taken


def _shown(taken: Taken, change: ReplicaChange) -> list[tuple[str, ReplicaChange]]:
    """Return what the answers in a record, or its ack, show of their replica.

    Their time is that of their log, which may be later.
    """
    place, at = (taken.topic, taken.partition, taken.offset), max(change.at, taken.append_ts)
    found = []
    for event in decode_values(EVENT_TOPICS[taken.topic], taken.value):
        if isinstance(event, Prediction) and event.replica is not None:
            stage, version = ("serving" if event.role == "live" else "staged"), event.version
            shown = ReplicaChange(event.replica, True, stage, version, event.epoch, None, at, place)
            found.append((event.model, shown))
        elif isinstance(event, Ack):
            stage, serving = event.stage, event.serving
            shown = ReplicaChange(event.replica, False, stage, serving, event.epoch, event.code, at, place)
            found.append((event.model, shown))
    return found


def _content(event: Deployment, signer: SignedBy | None) -> tuple[object, ...]:
    return event.model, event.version, event.status, event.ts, event.previous, signer is not None
