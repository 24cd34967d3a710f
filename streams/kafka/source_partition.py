"""One pair of source partitions: its reader, what is on its way to the ledger, and what may be committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

from streams.cache.window_cache import WindowCache, WindowCaches
from streams.config.resolved import Config
from streams.join.partition import FEEDBACK, PREDICTIONS, Raw
from streams.join.source_reader import Fingerprint, Position, SourceReader, fingerprint
from streams.join.source_records import SourceRecords
from streams.kafka.clients import Access, all_answered, answered
from streams.kafka.ledger_topic import Shape
from streams.kafka.log_checks import Leaders, mismatch
from streams.kafka.rewinds import publish_halt
from streams.ledger.entries import entry_of
from streams.ledger.records import Batch
from streams.rounds.ingest import AHEAD_MAX, REST_S, Limits, OpenTransaction, Pair, due, records_to_join, save_due
from streams.rounds.rewind import POSITION, Halt, position_text
from streams.topics.partitioner import partition_of
from streams.window.stored_rows import DamagedRows
from unship.topics import SOURCES

log = logging.getLogger("unship.ingest")

CLOCK_SKEW_MS = 1_000
"""A caught-up reader states a time this much before now, so that clocks that differ by less do no harm."""

SIDES = (PREDICTIONS, FEEDBACK)


class SourceChanged(Exception):
    """The log below a committed position is not the one that was read: its topic was made again or was cut off."""


class LastRead:
    """The last record of each log that was given to a reader, kept from one run of the service to the next."""

    def __init__(self) -> None:
        self._records: dict[TopicPartition, tuple[int, Raw]] = {}

    def note(self, place: TopicPartition, incarnation: int, raw: Raw) -> None:
        """Note the newest record of a log."""
        self._records[place] = incarnation, raw

    def of(self, place: TopicPartition, incarnation: int) -> Fingerprint | None:
        """Return what the newest record of an incarnation was, None if none was read."""
        known, raw = self._records.get(place, (-1, None))
        return None if raw is None or known != incarnation else fingerprint(raw)


class Links(msgspec.Struct, frozen=True):
    """What the `pairs` of one run of the service share. `clock_ms` is asked only where everything was read."""

    access: Access
    config: Config
    producer: AIOKafkaProducer
    consumer: AIOKafkaConsumer
    leaders: Leaders
    shape: Shape
    last_read: LastRead
    limits: Limits
    clock_ms: Callable[[], int]
    route: Callable[[str], int]
    windows: WindowCaches
    pairs: int

    def places(self, number: int) -> list[TopicPartition]:
        """Return a pair's partition of predictions and that of feedback."""
        return [TopicPartition(self.access.names.of(topic), number) for topic in SOURCES]

    def cache(self, number: int) -> WindowCache:
        """Return the cache of a pair's window."""
        topics = tuple(place.topic for place in self.places(number))
        return self.windows.of(topics, number, self.config.digest(), self.pairs)


def route_to(ledger_partitions: int) -> Callable[[str], int]:
    """Return the function from a model to its ledger partition, which is asked for every batch of it."""
    return cache(lambda model: partition_of(model.encode(), ledger_partitions))


class _Times(msgspec.Struct):
    """When a pair last did something, in seconds of the loop; it rests until there may be something to do."""

    committed: float = 0.0
    appended: float = 0.0
    saved: float = 0.0
    rests_until: float = 0.0


class SourcePartition:
    """Joins one pair of source partitions, and appends what is joined to the ledger; `open` makes it ready."""

    def __init__(self, links: Links, number: int, begin: Position) -> None:
        """Take where to begin: a committed position, or the beginning of its incarnation."""
        self.number = number
        self._links = links
        self._cache = links.cache(number)
        self.reader = self._new_reader(begin)
        self._places = links.places(number)
        self._appending: asyncio.Future[Any] | None = None
        self._acknowledged: Position | None = None
        self._at = _Times()
        self._transactions = OpenTransaction(), OpenTransaction()
        self._settling = False
        # Records of each log that can be read and were not.
        self._unread = [0, 0]

    def _new_reader(self, begin: Position) -> SourceReader:
        links, cache = self._links, self._cache
        return SourceReader(
            links.config, self.number, begin, ledger_partitions=links.shape.ledger, route=links.route,
            secret=cache.secret, beyond=cache.beyond, in_pieces=True,
        )  # fmt: skip

    # Opening and checking

    async def open(self, committed: Position) -> None:
        """Check that both logs are those of a committed position, and go to where they are read from.

        Raises:
            SourceChanged: one is not.
        """
        self._at.saved = asyncio.get_running_loop().time()
        await self._resume()
        for side, place in enumerate(self._places):
            first = (await self._links.consumer.beginning_offsets([place]))[place]
            # An earlier run may have read more than it committed: where that one is the same, those before it are too.
            known, newest = committed.last[side], self._links.last_read.of(place, committed.incarnation)
            if newest is not None and (known is None or newest.offset > known.offset):
                known = newest
            await self._check(place, known)
            if first > self.reader.next_offset(side):
                # Retention was faster than the reader: what is gone is counted.
                self.reader.skip(side, first, lost=True)
            self._links.consumer.seek(place, max(first, self.reader.next_offset(side)))

    async def _resume(self) -> None:
        """Take the window from the cache if it is one of these logs."""
        saved = self._cache.saved(self.reader.began)
        if saved is None:
            return
        try:
            for place, known in zip(self._places, saved.position.last, strict=True):
                await self._confirm(place, known)
            # Takes seconds for millions of rows, in which heartbeats go on.
            await asyncio.to_thread(self.reader.resume, saved)
            log.info("partition %d: the window is read from the disk, as at %s", self.number, saved.position.end)
        except DamagedRows as error:
            log.warning("partition %d: the window is filled from the log: %s", self.number, error)
            self._cache.discard()
            self.reader = self._new_reader(self.reader.began)

    async def _confirm(self, place: TopicPartition, known: Fingerprint | None) -> None:
        """Make sure that the cache is one of this log.

        Raises:
            DamagedRows: it is not, or the log has no record left that shows it.
        """
        if known is None:
            return
        consumer = self._links.consumer
        first = (await consumer.beginning_offsets([place]))[place]
        if known.offset < first:
            raise DamagedRows(f"{place.topic} begins at offset {first}, and the saved window ends at {known.offset}")
        found = await mismatch(self._links.access, consumer, place, known)
        if found is not None:
            raise DamagedRows(found)

    async def _check(self, place: TopicPartition, known: Fingerprint | None) -> None:
        """Make sure that a record that was read is still there; if it is not, every worker has to stop reading.

        Raises:
            SourceChanged: it is not.
        """
        links = self._links
        found = None if known is None else await mismatch(links.access, links.consumer, place, known)
        if found is not None:
            why = (
                f"{found}; if the topic was made again or cut off on purpose, confirm it with: "
                f"unship topics renew {place.partition}"
            )
            # The next reader of this partition may have committed less, and would not see it.
            await publish_halt(links.access, links.producer, Halt(self.number, self.reader.incarnation, why))
            raise SourceChanged(why)

    # Reading

    async def give(self, place: TopicPartition, records: SourceRecords) -> None:
        """Give records to the reader; ahead of the first ones of another leader, what was read before is compared."""
        last_read, incarnation = self._links.last_read, self.reader.incarnation
        if self._links.leaders.changed(place):
            await self._check(place, last_read.of(place, incarnation))
        self._at.rests_until = 0.0
        self.reader.give(self._places.index(place), records)
        last_read.note(
            place, incarnation, Raw(int(records.offsets[-1]), int(records.append_ts[-1]), records.values[-1])
        )

    def full(self) -> list[TopicPartition]:
        """Return the logs of which the reader has no room for more."""
        reader = self.reader
        return [
            place
            for side, place in enumerate(self._places)
            if not reader.has_room(side) or reader.queued(side) >= AHEAD_MAX
        ]

    @property
    def busy(self) -> bool:
        """Return whether rows wait for the ledger, or are on their way."""
        return self._appending is not None or self.reader.waiting > 0

    @property
    def unread(self) -> int:
        """Return how many records of its logs were to be read when they were looked at last."""
        return sum(self._unread)

    def rests(self, now: float) -> bool:
        """Return whether it has nothing to do: it was given nothing since it was looked at a moment ago."""
        return now < self._at.rests_until

    async def caught_up(self) -> tuple[bool, bool]:
        """Return for each log whether there is nothing more than what was given to the reader."""
        found = []
        consumer = self._links.consumer
        for side, place in enumerate(self._places):
            position = await consumer.position(place)
            if self.reader.filling and not self.reader.queued(side):
                # What ends the range may be no record but the end of a transaction.
                self.reader.skip(side, position)
            try:
                stable, end = consumer.last_stable_offset(place), consumer.highwater(place)
            except IllegalStateError:
                # The partition was revoked a moment ago.
                stable = end = None
            # What follows an open transaction cannot be read yet, and is not nothing.
            found.append(end is not None and position >= end >= 0)
            readable = end if stable is None or stable < 0 else stable
            self._unread[side] = 0 if readable is None else max(readable - position, 0)
            held = stable is not None and end is not None and 0 <= stable <= position < end
            self._report_transaction(side, place, held, position, end)
        return found[PREDICTIONS], found[FEEDBACK]

    def _report_transaction(self, side: int, place: TopicPartition, held: bool, position: int, end: int | None) -> None:
        """Log once that an open transaction holds a log back: everything behind it is not counted."""
        report = self._transactions[side].see(held, asyncio.get_running_loop().time())
        if report == "ended":
            log.warning("%s partition %d: the open transaction has ended", place.topic, place.partition)
        elif report == "held":
            log.warning(
                "%s partition %d: an open transaction holds back everything from offset %d on (the log ends at %d): "
                "nothing of it is counted and no time passes until its writer ends it",
                place.topic, place.partition, position, end,
            )  # fmt: skip

    # Rounds

    async def work(self, flush: bool) -> tuple[bool, bool]:
        """Join what was read, commit and append what is due.

        Returns:
            Whether there is nothing more to read or to join; and whether this used the flush of the round.
        """
        if self._settling:
            # A rebalance does so meanwhile: a batch after its last one would leave a gap if that one did not arrive.
            return True, False
        reader, limits = self.reader, self._links.limits
        caught_up = await self.caught_up()
        if self._cache.closed:
            # Another reader may have the rows on disk by now.
            return True, False
        self.join(caught_up, records_to_join(reader.filling, reader.waiting, limits))
        done = all(caught_up) and not any(map(reader.queued, SIDES)) and not reader.filling
        if self.cancelled:
            return done, False
        if self._appending is not None and self._appending.done():
            self._appending.result()
            self._appending = None
        now = asyncio.get_running_loop().time()
        output = due(self._pair(all(caught_up)), limits, now, flush=flush)
        if output.commit:
            # Ahead of the next batch: in a backlog there always is one.
            await self.commit()
        if output.append and not self._settling:
            self._at.appended = now
            self._appending = asyncio.ensure_future(self.append(caught_up))
        if done and not self.busy:
            self._at.rests_until = now + REST_S
        return done, output.append and flush

    def join(self, caught_up: tuple[bool, bool], records_max: int) -> None:
        """Join so many records of those that were given."""
        if records_max:
            self.reader.advance(caught_up, records_max, fill_only=self.reader.filling)

    def _pair(self, caught_up: bool) -> Pair:
        return Pair(
            filling=self.reader.filling,
            waiting=self.reader.waiting,
            lag=self.unread + sum(map(self.reader.queued, SIDES)),
            caught_up=caught_up,
            appending=self._appending is not None,
            uncommitted=self._acknowledged is not None,
            committed_at=self._at.committed,
            appended_at=self._at.appended,
        )

    async def append(self, caught_up: tuple[bool, bool]) -> None:
        """Append everything joined to the ledger; only then its position may be committed."""
        reader, links, names = self.reader, self._links, self._links.access.names
        stated = links.clock_ms() - CLOCK_SKEW_MS
        pieces = reader.flush_in_pieces((stated if caught_up[0] else -1, stated if caught_up[1] else -1))
        facts = reader.replica_facts()
        position = reader.position()
        self._save_window(position)
        dead = list(reader.dead)
        reader.dead.clear()
        send, ledger = links.producer.send_and_wait, names.of("ledger")
        for earlier in pieces[:-1]:
            # One after the other: a piece ahead of the one before it would be a gap.
            await all_answered(self._sent(earlier))
        futures = self._sent(pieces[-1])
        for fact in facts:
            futures.append(send(ledger, entry_of(fact).value, fact.model.encode(), partition=links.route(fact.model)))
        for letter in dead:
            value = msgspec.structs.replace(letter, topic=names.of(letter.topic)).encoded()
            futures.append(send(names.of("rejected"), value))
        await all_answered(futures)
        self._acknowledged = position

    def _sent(self, batches: list[Batch]) -> list[Awaitable[Any]]:
        """Begin to append a batch to each ledger partition."""
        links, futures = self._links, list[Awaitable[Any]]()
        for k, batch in enumerate(batches):
            key = batch.parts[0].model.encode() if batch.parts else None
            value = entry_of(batch).value
            futures.append(links.producer.send_and_wait(links.access.names.of("ledger"), value, key, partition=k))
        return futures

    def _save_window(self, position: Position) -> None:
        """Save the window at a position, if it is time for that; before anything more is joined."""
        now = asyncio.get_running_loop().time()
        if save_due(position.low, position.end, now - self._at.saved, last=self._settling):
            self._at.saved = now
            self._cache.prepare(self.reader)

    async def commit(self) -> None:
        """Commit what the ledger has acknowledged, with a copy in the topic `rewind`."""
        position = self._acknowledged
        assert position is not None
        metadata = position_text(position)
        predictions, feedback = self._places
        try:
            # The second one only shows other tools how far the reader is.
            ends = {predictions: (position.end[0], metadata), feedback: (position.end[1], "")}
            topic, key = self._links.access.names.of("rewind"), POSITION + b"%d" % self.number
            await answered(self._links.producer.send_and_wait(topic, metadata.encode(), key))
            await answered(self._links.consumer.commit(ends))
        except CommitFailedError:
            log.info("partition %d was reassigned; its batches are covered when they are read again", self.number)
        else:
            self._cache.publish(position)
        self._acknowledged = None
        self._at.committed = asyncio.get_running_loop().time()

    # End

    async def appended(self) -> None:
        """Wait until what is on its way to the ledger is acknowledged."""
        if self._appending is not None:
            await self._appending
            self._appending = None

    async def settle(self) -> None:
        """Append what was read, and commit; it is not worked on any more."""
        self._settling = True
        await self.appended()
        if self.reader.filling:
            return
        if self.reader.waiting or self.reader.moved:
            await self.append((False, False))
        else:
            self._save_window(self.reader.position())
        if self._acknowledged is not None:
            await self.commit()
        else:
            self._cache.publish(self.reader.position())

    @property
    def cancelled(self) -> bool:
        """Return whether an append was cancelled: the pair is read again from the commit."""
        return self._appending is not None and self._appending.cancelled()

    def cancel(self) -> None:
        """Cancel in-flight appends, and leave the cache; the next reader appends again what is not covered."""
        self._cache.close()
        if self._appending is not None:
            self._appending.cancel()
