"""Give space back: what of an embedded log nobody needs any more, and the work that removes or compresses it.

Predictions and feedback leave once no label can join them: a restart under another configuration, or without a
snapshot, reads the join's window again, and that of the longest horizon is kept. The ledger and the decisions stay;
they are compressed once the older of the two snapshots is beyond them. Of compacted topics the newest record of a key
stays.

A round does a bounded part of the work, and mostly none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from streams.config.resolved import Config
from streams.config.units import DAY_MS, MINUTE_MS
from streams.embedded.snapshots import heads
from streams.window.series import INTERVALS
from unship.log.embedded.log import EmbeddedLog
from unship.topics import SOURCES

EVERY_MS: Final = 30_000
EVERY_ROUNDS: Final = 500
"""So often is looked for something to do, by the clock, and by rounds where the clock does not go on."""

RECORDS_AT_ONCE: Final = 8_192
"""Of each topic in one round: more than a round reads, so that the log does not grow however fast it is written."""

SEGMENT_RECORDS: Final = 50_000
SEGMENT_MS: Final = 7 * DAY_MS
"""The monitor removes records of a topic once so many can be removed, or the first of them could be so long ago: like
the segments of a Kafka topic. `unship trim` removes them at once."""

COMPACTED_FROM: Final = {"control": 500, "acks": 500, "snapshots": 1}
"""So many superseded records of a topic are removed at once. Those of snapshots are large, and nobody reads them."""


class Removable(msgspec.Struct, frozen=True):
    """Offsets below which records of a topic can be removed, and below which they can be compressed.

    What was appended before `since`, a time of the source clock in milliseconds, cannot be joined any more.
    """

    trim: dict[str, int]
    pack: dict[str, int]
    since: int = 0


def needed_ms(config: Config) -> int:
    """Return how long predictions and feedback are needed, in milliseconds of the source clock."""
    every = [config.defaults, *config.models.values()]
    # The join evicts by intervals of the horizon: one more of them is kept.
    longest = max(model.horizon_ms + model.horizon_ms // INTERVALS + 2 * model.early_ms for model in every)
    return longest + MINUTE_MS


def removable(log: EmbeddedLog, keep_ms: int) -> Removable:
    """Return what neither a restart nor a label that may come needs; nothing before the first snapshot.

    Args:
        log: The log.
        keep_ms: How long the configuration in force needs source records.
    """
    known = [stored.head for stored in heads(log)]
    if not known:
        return Removable({}, {})
    newest = known[0]
    since = newest.clock - max(keep_ms, *(head.keep_ms for head in known))
    trim, pack = {}, {}
    for topic in SOURCES:
        # Where both snapshots are lost, positions come from the ledger, which is never behind them.
        reached = min(head.positions.get(topic, 0) for head in known)
        trim[topic] = max(0, min(reached, log.first_since(topic, since)))
        pack[topic] = reached
    trim["rejected"] = log.first_since("rejected", since)
    pack["ledger"] = min(head.offset for head in known)
    pack["decisions"] = log.end("decisions")
    return Removable(trim, pack, since)


class Retention:
    """Does the work of one monitor's log, a part of it each round."""

    def __init__(self, log: EmbeddedLog, config: Config) -> None:
        self._log = log
        self._keep_ms = needed_ms(config)
        self._due_at = -1
        self._rounds = 0

    @property
    def keep_ms(self) -> int:
        """Return how long the configuration needs source records, in milliseconds."""
        return self._keep_ms

    def round(self, now_ms: int, positions: Mapping[str, int]) -> None:
        """Do what is due.

        Args:
            now_ms: The wall clock.
            positions: How far the monitor has read each topic of events: acks beyond that are not compacted.

        Raises:
            EmbeddedLogError: The log takes nothing now; what was done stays done.
        """
        self._rounds += 1
        if now_ms < self._due_at and self._rounds < EVERY_ROUNDS:
            return
        more = self._work(positions)
        self._rounds = 0
        self._due_at = -1 if more else now_ms + EVERY_MS

    def _work(self, positions: Mapping[str, int]) -> bool:
        """Remove and compress; return whether there is more."""
        log, found, more = self._log, removable(self._log, self._keep_ms), False
        for topic, before in found.trim.items():
            first = log.first(topic)
            if before - first < SEGMENT_RECORDS and log.first_since(topic, found.since - SEGMENT_MS) <= first:
                continue
            more |= log.trim(topic, before, at_most=RECORDS_AT_ONCE) >= RECORDS_AT_ONCE
        for topic, before in found.pack.items():
            more |= log.pack(topic, before, at_most=RECORDS_AT_ONCE) >= RECORDS_AT_ONCE
        for topic, least in COMPACTED_FROM.items():
            if log.superseded(topic, least) < least:
                continue
            before = positions[topic] if topic in positions else log.end(topic)
            more |= log.compact(topic, before, at_most=RECORDS_AT_ONCE) >= RECORDS_AT_ONCE
        more |= log.shrink() > 0
        return more
