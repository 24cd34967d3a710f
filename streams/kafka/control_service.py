"""The controller service: fold the ledger partitions that the group assigns, append to the journal, and command.

What is known of a ledger partition is a function of its records, so two controllers alive compute the same bytes. What
keeps an old one from commanding is the broker: the one transaction in this system fences the writer of `control`.

The order on take-over matters: fence off the older writer first, read what was decided and commanded, fold to the end
of the ledger, and only then publish.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition

from actions.control_records import trusted_commands, trusted_decisions
from actions.reconcile import Signer, SteadyClock, Timing
from streams.config.resolved import Config
from streams.kafka.clients import END_S, Access, end_consumer, has_topic, join, producing, read_all
from streams.kafka.ledger_partition import LedgerPartition, Links, Turns, Unreadable
from streams.kafka.ledger_topic import Shape, open_ledger
from streams.kafka.log_checks import Leaders, Stalls
from streams.kafka.snapshots import SnapshotStore
from streams.ledger.records import trusted_of
from streams.rounds.control import LedgerConflict, Terms
from streams.topics.partitioner import partition_of
from streams.topics.rights import CONTROL_GROUP
from unship.errors import BrokerUnreachable

log = logging.getLogger("unship.control")

GROUP = CONTROL_GROUP


class ControlService:
    """Decides and commands for the assigned ledger partitions; `run` is one run, to be repeated after an error."""

    def __init__(
        self, access: Access, config: Config, clock_ms: Callable[[], int], signer: Signer | None, timing: Timing
    ) -> None:
        self.access = access
        self.config = config
        self.signer = signer
        self.terms = terms_of(signer, timing, config)
        self._keys: Callable[[], Signer | None] = lambda: signer
        self._steady = SteadyClock()
        self._clock_ms = clock_ms
        self._stopping = False
        self._running: _Run | None = None
        self._unreadable: Unreadable | None = None
        self.observe: Callable[[str, float], None] = lambda stage, seconds: None

    @property
    def partitions(self) -> dict[int, LedgerPartition]:
        """Return the partitions that are assigned now."""
        return {} if self._running is None else self._running.partitions

    @property
    def settled(self) -> bool:
        """Return whether no partition waits to be taken over."""
        return self._running is None or self._running.settled

    @property
    def unread(self) -> int:
        """Return how many ledger records are not folded yet, as far as the brokers have reported."""
        return 0 if self._running is None else self._running.unread

    @property
    def caught_up(self) -> bool:
        """Return whether every partition was taken over and folded to the end that it had then."""
        partitions = list(self.partitions.values())
        return self._running is not None and self.settled and all(each.state.caught_up for each in partitions)

    def time_stages(self, observe: Callable[[str, float], None]) -> None:
        """Report how long stages take, in seconds, from the next take-over on."""
        self.observe = observe

    def now_ms(self) -> int:
        """Return the time for commands, in milliseconds; it never goes back."""
        return self._steady.at(self._clock_ms())

    def reached(self, time_ms: int) -> None:
        """Advance to the issue time of a published command, as far as the wall clock allows."""
        self._steady.reached(time_ms, self._clock_ms())

    def follow_keys(self, keys: Callable[[], Signer | None]) -> None:
        """Sign and verify with the keys that this returns; where it returns others, another run begins."""
        self._keys = keys

    def stop(self) -> None:
        """Let `run` end after it has saved."""
        self._stopping = True

    async def run(self) -> None:
        """Fold until stopped.

        Raises:
            KafkaError: the broker does not do what was asked, or another controller has taken over; start again.
            LedgerConflict: an operator has to look first.
        """
        self._stopping = False
        if self._unreadable is not None:
            # Workers that can go on need the partitions.
            raise self._unreadable
        while not self._stopping:
            await self._run()

    async def _run(self) -> None:
        """Fold until stopped, or until other keys are trusted: everything published is then read back by them."""
        keys = self._keys()
        if keys is not self.signer:
            self.signer, self.terms = keys, terms_of(keys, self.terms.timing, self.config, replaced=True)
        async with producing(self.access) as producer:
            await open_ledger(self.access, producer, self.config)
            run = self._running = _Run(self, producer)
            try:
                await run.join()
                while not self._stopping and self._keys() is self.signer:
                    await run.round()
                await run.finish()
            except LedgerConflict as error:
                if isinstance(error, Unreadable):
                    self._unreadable = error
                await run.snapshots.report_halt(error.number, str(error))
                raise
            finally:
                await run.close()


def terms_of(signer: Signer | None, timing: Timing, config: Config, *, replaced: bool = False) -> Terms:
    """Return what holds for all ledger partitions; `replaced` is true where the keys changed while it ran."""
    if signer is None:
        return Terms(None, timing, config.digest())
    audience = signer.audience if signer.may_command else None
    return Terms(audience, timing, config.digest(), trusted_of(signer.trust), replaced)


class _Run(ConsumerRebalanceListener):  # type: ignore[misc]
    """One run of the service: from joining the group to leaving it."""

    def __init__(self, service: ControlService, producer: AIOKafkaProducer) -> None:
        self.partitions: dict[int, LedgerPartition] = {}
        self.snapshots = SnapshotStore(service.access, producer)
        self._service = service
        self._producer = producer
        self._consumer = service.access.member(service.access.names.prefix + GROUP, ["ledger"], self)
        self._leaders = Leaders(self._consumer)
        self._stalls = Stalls(service.access, self._consumer)
        self._turns = Turns()
        self._assigned: list[TopicPartition] = []
        self._taking: asyncio.Task[None] | None = None

    @property
    def settled(self) -> bool:
        """Return whether no partition waits to be taken over."""
        return not self._assigned and self._taking is None

    @property
    def unread(self) -> int:
        """Return how many records of the assigned partitions are not folded yet."""
        found = 0
        for place in self._consumer.assignment():
            partition, end = self.partitions.get(place.partition), self._consumer.highwater(place)
            if partition is not None and end is not None:
                found += max(0, end - partition.state.fold.offset)
        return found

    async def join(self) -> None:
        """Join the group. A member whose start fails has joined it all the same, and has to leave it by `close`."""
        await join(self._consumer)

    async def finish(self) -> None:
        """Publish everything that is due, and save."""
        for partition in list(self.partitions.values()):
            await partition.finish()

    async def close(self) -> None:
        """Leave the group, with everything in memory dropped."""
        await self._close_partitions()
        await end_consumer(self._consumer)

    # Assignment

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Drop the partitions; the member that is assigned them folds again from the ledger."""
        await self._close_partitions()

    async def _close_partitions(self) -> None:
        # The take-over first, which makes more of them: a client that is ended while it starts would start for ever.
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.cancel()
            await asyncio.wait((taking,), timeout=END_S)
        partitions = list(self.partitions.values())
        self.partitions.clear()
        for partition in partitions:
            await partition.close()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause the partitions until they are taken over in the next round, where an error ends this run."""
        self._assigned = sorted(assigned)
        for place in self._assigned:
            # Without any position the client would ask the group for one, and refuse to go on without.
            self._consumer.seek(place, 0)
            self._consumer.pause(place)

    async def _take_over(self, assigned: list[TopicPartition]) -> bool:
        """Take partitions over; false if a rebalance revokes them meanwhile: no reason for a new run."""
        taking = self._taking = asyncio.create_task(self._take_over_all(assigned))
        await asyncio.wait((taking,))
        if taking.cancelled():
            if self._taking is not taking:
                return False
            raise BrokerUnreachable("what the take-over waited for was cancelled")
        self._taking = None
        taking.result()
        return True

    async def _take_over_all(self, assigned: list[TopicPartition]) -> None:
        service = self._service
        shape = await open_ledger(service.access, self._producer, service.config)
        links = Links(
            service.access, service.config, self._producer, self.snapshots, shape, service.signer, service.terms,
            service.now_ms, self._turns, await has_topic(service.access, "alerts"), service.observe,
        )  # fmt: skip
        for place in assigned:
            # Known before it is started: whatever goes wrong from here on, it is ended with the others.
            partition = self.partitions[place.partition] = LedgerPartition(links, place.partition)
            await partition.start()
        await self._read_published(shape, alerts=links.alerts)
        saved = await self.snapshots.read()
        for place in assigned:
            await self.partitions[place.partition].restore(saved, self._consumer, place)
        self._consumer.resume(*assigned)

    async def _read_published(self, shape: Shape, *, alerts: bool) -> None:
        """Read commands, journal and alerts of the partitions, each topic once, however many are taken over."""
        signer = self._service.signer
        trust = None if signer is None else signer.trust
        for number, records in (await self._read("control", shape)).items():
            commands, forged = trusted_commands(records, trust)
            self.partitions[number].state.commands_read([command for _, command in commands.values()], len(forged))
            self._service.reached(max((command.issued_ts for _, command in commands.values()), default=0))
            _report_forged(number, "control", forged)
        for number, records in (await self._read("decisions", shape)).items():
            decisions, forged = trusted_decisions(records, trust)
            for record, decision in decisions.values():
                self.partitions[number].state.decision_read(decision, record.value)
            _report_forged(number, "decisions", forged)
        if alerts:
            # Their keys are not models, so any partition may hold those of any ledger partition.
            values = [record.value for record in await read_all(self._service.access, "alerts")]
            for number in self.partitions:
                self.partitions[number].state.alerts_read(values)

    async def _read(self, topic: str, shape: Shape) -> dict[int, list[Any]]:
        """Return the records of a topic by the ledger partition of their key, of those that are taken over."""
        found: dict[int, list[Any]] = {number: [] for number in self.partitions}
        for record in await read_all(self._service.access, topic):
            number = partition_of(record.key or b"", shape.ledger)
            if number in found:
                found[number].append(record)
        return found

    # Rounds

    async def round(self) -> None:
        """Take over what was assigned, fold what the ledger has, and publish what follows."""
        if self._assigned:
            assigned, self._assigned = self._assigned, []
            if not await self._take_over(assigned):
                return
        fetched = await self._consumer.getmany(timeout_ms=100, max_records=500)
        held = [place for place in self._consumer.assignment() if place.partition in self.partitions]
        await self._stalls.look(held, bool(fetched))
        for place, records in fetched.items():
            partition = self.partitions.get(place.partition)
            if self._leaders.changed(place) and partition is not None:
                # Ahead of what another leader gives.
                await partition.compare(self._consumer, place)
            for record in records:
                if partition is None or self.partitions.get(place.partition) is not partition:
                    # It was revoked a moment ago.
                    break
                await partition.apply(record)
        for partition in list(self.partitions.values()):
            partition.round()


def _report_forged(number: int, topic: str, forged: Sequence[Any]) -> None:
    if forged:
        last = forged[-1]
        log.warning(
            "ledger partition %d: %d records of %s are ignored, because no trusted controller signed them; the last is "
            "at partition %d, offset %d",
            number, len(forged), topic, last.partition, last.offset,
        )  # fmt: skip
