"""What a recording should hold by its own account: from where to where its topics were recorded.

A recording may begin late (`unship record --from`), may hold a ledger and its decisions alone, and lacks what retention
or compaction took away. Where neither explains that a record is absent, it was taken out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from streams.recordings.lines import Place, Taken, Topics

JUDGED: Final = ("ledger", "decisions")
_KEPT: Final = ("predictions", "feedback", "deployments", "operator")
"""Topics of events of which no record is superseded: one that begins at offset 0 was recorded from its beginning."""


class Extent:
    """The places of a recording or a log that have records, and whether they have all from the first one on."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self._ends = {place: end for place, end in topics.ends().items() if end}
        self.begins = {place: topics.first(*place) for place in self._ends}
        held = [place for place, end in self._ends.items() if self.begins[place] < end]
        self.bare = all(topic in JUDGED for topic, _ in held)
        """True where it holds a ledger and its decisions alone."""
        self.from_start = any(topic in _KEPT and self.begins[topic, number] == 0 for topic, number in held)
        """True where events are recorded from the first one on."""

    def end(self, place: Place) -> int:
        """Return the offset after the last record of a partition, 0 where it has none."""
        return self._ends.get(place, 0)

    def places(self, topic: str) -> list[Place]:
        """Return the partitions of a topic that have a record."""
        return sorted(place for place in self._ends if place[0] == topic)

    def should_reach(self, place: Place, end: int) -> bool:
        """Return whether a partition should have its records up to an offset that is beyond its end."""
        if self.end(place) >= end or (self.bare and place[0] not in JUDGED):
            return False
        return place in self._ends or place[0] in JUDGED or self.from_start

    def should_hold(self, place: Place, offset: int) -> bool:
        """Return whether a record of a topic that is not compacted should be there."""
        if place in self._ends:
            return offset >= self.begins[place]
        return self.from_start and not self.bare

    def newest_ts(self, *, of: tuple[str, ...]) -> int:
        """Return the append time of the newest record of some topics, -1 where they have none."""
        found = -1
        for place, end in self._ends.items():
            if place[0] in of and end > self.begins[place]:
                for back in (1, 2):
                    # The last offset may be of a transaction's end, which is no record.
                    page = self.topics.read(*place, max(end - back, self.begins[place]))
                    found = max([found, *(taken.append_ts for taken in page[-1:])])
        return found

    def records(self, place: Place, begin: int = 0) -> Iterator[Taken]:
        """Yield the records of a partition from an offset on."""
        offset, end = max(begin, self.begins.get(place, 0)), self.end(place)
        while offset < end and (page := self.topics.read(*place, offset)):
            yield from (taken for taken in page if taken.offset < end)
            offset = page[-1].offset + 1


KEYS_MAX: Final = 200_000
"""More replicas and models than these are beyond every limit; then a hole is not looked for."""


def hole_in_compacted(records: Iterator[Taken]) -> int | None:
    """Return an offset whose record compaction cannot have taken, None if there is none.

    Compaction takes, from the oldest on, each record that a newer one of its key supersedes. So where it has taken one,
    the records before it have a key each, and a newer one of the taken record's key comes before the first key that
    is there twice.
    """
    keys: set[bytes | None] = set()
    expected, hole, repeated = 0, -2, False
    for taken in records:
        if taken.offset > expected:
            if repeated:
                return expected
            hole = taken.offset - 1
        if taken.key in keys and not repeated:
            if taken.offset == hole + 1:
                return hole
            repeated = True
        keys.add(taken.key)
        expected = taken.offset + 1
        if len(keys) > KEYS_MAX:
            break
    return None
