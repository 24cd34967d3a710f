"""Controllers of a real broker that die at any write, live twice, or meet a ledger that they cannot read."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, ProducerFenced

from actions.checkpoints import CHECKPOINT_KEY
from actions.journal import decision_bytes, digest_of
from actions.reconcile import Timing
from streams.config.resolved import FOLD_VERSION
from streams.kafka.clients import Access, read_all
from streams.kafka.control_service import ControlService
from streams.kafka.ledger_topic import configuration_for, open_ledger
from streams.ledger.entries import entry_of
from streams.ledger.records import Deployed, Operated, Record
from streams.rounds.control import LedgerConflict
from streams.topics.rights import TRANSACTION_PREFIX
from tests.kafka.control.signer import SIGNER
from tests.kafka.inside import Inside, Retried, ended, living
from tests.kafka.network import INIT_PRODUCER_ID, behind
from tests.kafka.shared import SharedKafka
from tests.keys import TRUST
from tests.waiting import HANG_S, eventually
from unship.commands import Command, decode_command
from unship.events import Deployment, OperatorAct
from unship.log.link import wall_ms
from unship.signing import COMMAND_TYPE, DECISION_TYPE, TrustedKey, verify

# What writes the ledger is let in, what writes the commands waits.
WRITER_OF_COMMANDS = INIT_PRODUCER_ID, TRANSACTION_PREFIX.encode()
START_MS = 1_772_000_000_000
ACTING = "models: {a: {policy: {mode: act, deployments: any}}, b: {policy: {mode: act, deployments: any}}}"


class Died(KafkaError):  # type: ignore[misc]
    """The process died."""


class Dying(AIOKafkaProducer):  # type: ignore[misc]
    """A producer whose process dies at one of its writes, before the broker has it or right after."""

    writes = 0
    dies_at = 0
    after = False

    async def send(self, *arguments: Any, **settings: Any) -> Any:
        done = await self._at(super().send(*arguments, **settings))
        return done

    async def commit_transaction(self) -> None:
        await self._at(super().commit_transaction())

    async def _at(self, work: Any) -> Any:
        Dying.writes += 1
        dies = Dying.writes == Dying.dies_at
        if dies and not Dying.after:
            work.close()
            raise Died("before it was written")
        done = await work
        if dies:
            if done is not None and self._txn_manager is None:
                await done
            raise Died("after it was written")
        return done


class DyingAccess(Access, frozen=True):
    """Makes such producers."""

    def producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        made = super().producer(transactional_id)
        made.__class__ = Dying
        return made


def controller(site: Inside, access: Access | None = None) -> ControlService:
    return ControlService(access or site.access, site.config, wall_ms, SIGNER, Timing())


def story(length: int) -> Iterator[tuple[str, Record]]:
    """Yield records of a ledger that lead to a command each, and every other one to a decision; with its model."""
    for turn in range(length):
        for place, model in enumerate(("a", "b"), start=2 * turn):
            at = ("deployments", 0, place, turn)
            if turn % 2 == 0:
                event = Deployment(model=model, version=f"v{turn}", status="live", ts=START_MS + turn, at=at)
                yield model, Deployed(-1, event)
            else:
                act = OperatorAct(
                    act="rollback", model=model, to=f"w{turn}", reason="drill", by="me", override=True,
                    ts=START_MS + turn, at=("operator", 0, place, turn),
                )  # fmt: skip
                yield model, Operated(-1, act)


async def begin(site: Inside) -> None:
    await site.make_topics()
    async with site.access.producer() as producer:
        await open_ledger(site.access, producer, site.config)


async def write(site: Inside, records: list[tuple[str, Record]]) -> None:
    async with site.access.producer() as producer:
        for _, record in records:
            await producer.send_and_wait(site.access.names.of("ledger"), entry_of(record).value, partition=0)


async def commands(site: Inside) -> list[Command]:
    found = []
    for record in await read_all(site.access, "control"):
        assert isinstance(verify(record.value, record.headers, TRUST, "controller", COMMAND_TYPE), TrustedKey)
        command = decode_command(record.value)
        assert isinstance(command, Command)
        found.append(command)
    return found


async def check(site: Inside) -> None:
    """The journal holds what the ledger leads to, each epoch once over, and every command in order what it desires."""
    (fold,) = await site.folds()
    again = site.new_fold()
    decided: dict[tuple[str, Any], str] = {}
    for offset, record in enumerate(await site.records()):
        again.offset = offset
        for decision in again.step(entry_of(record)):
            decided[decision.model, decision.epoch] = digest_of(decision_bytes(decision))
    journal: dict[tuple[str, Any], str] = {}
    for entry in await read_all(site.access, "decisions"):
        assert isinstance(verify(entry.value, entry.headers, TRUST, "controller", DECISION_TYPE), TrustedKey)
        if entry.key == CHECKPOINT_KEY:
            continue
        read = json.loads(entry.value)
        assert journal.setdefault((read["model"], tuple(read["epoch"])), digest_of(entry.value)) == digest_of(
            entry.value
        )
    assert journal == decided
    newest: dict[str, Command] = {}
    for command in await commands(site):
        before = newest.get(command.model)
        assert before is None or before.epoch <= command.epoch
        assert command.decision is None or (command.model, command.epoch) in journal
        newest[command.model] = command
    for name, model in fold.models.items():
        desired = model.state.desired
        assert (newest[name].epoch, newest[name].serve) == (desired.epoch, desired.serve)


async def spoken(site: Inside, expected: int) -> bool:
    """Whether control holds commands of so many epochs' newest: what the whole ledger desires."""
    newest = {command.model: command.epoch[1] for command in await commands(site)}
    return len(newest) == 2 and min(newest.values()) >= expected - 2


def test_controller_that_dies_at_every_write_says_everything_once_and_in_order(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A snapshot at every occasion, in several parts, so that retried end between them too.
    monkeypatch.setattr("streams.kafka.ledger_partition.SNAPSHOT_S", 0.0)
    monkeypatch.setattr("streams.kafka.ledger_partition.STATUS_S", 0.0)
    monkeypatch.setattr("streams.kafka.snapshots.PART_BYTES", 1_500)

    async def run() -> None:
        site = Inside(kafka, ACTING)
        await begin(site)
        records = list(story(20))
        dying = DyingAccess(site.access.options, site.access.names, site.access.session_ms)
        for life in range(20):
            await write(site, records[2 * life : 2 * life + 2])
            # The first write of a life, its second, and so on; a snapshot has five or six.
            Dying.writes, Dying.dies_at, Dying.after = 0, 1 + life // 2, bool(life % 2)
            with pytest.raises(Died):
                await controller(site, dying).run()
        service = controller(site)
        async with living(service) as tasks:

            async def done() -> bool:
                return await spoken(site, 1 + len(records))

            await eventually(done)
            await ended(service, tasks[0])
        await check(site)

    asyncio.run(run())


def test_of_two_controllers_alive_the_later_one_commands_and_both_journal_the_same(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        site = Inside(kafka, ACTING)
        await begin(site)
        records = list(story(4))
        await write(site, records[:4])
        old, new = controller(site), controller(site)
        async with living(old) as tasks:

            async def said(count: int) -> bool:
                return await spoken(site, 1 + count)

            await eventually(lambda: said(4))
            # Of another group, so that nobody takes the partition from the first one.
            monkeypatch.setattr("streams.kafka.control_service.GROUP", "another")
            async with living(new) as others:
                await eventually(lambda: _taken_over(new))
                await write(site, records[4:])
                with pytest.raises(ProducerFenced):
                    await asyncio.wait_for(tasks[0], HANG_S)
                await eventually(lambda: said(8))
                await ended(new, others[0])
        await check(site)

    asyncio.run(run())


async def _taken_over(service: ControlService) -> bool:
    return any(
        partition.state.caught_up and partition.state.sent.configuration for partition in service.partitions.values()
    )


def test_writer_that_is_not_let_in_ends_one_life_and_the_next_one_commands(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.clients.ANSWER_S", 1.5)

    async def run() -> None:
        site = Inside(kafka, ACTING)
        await begin(site)
        await write(site, list(story(2)))
        async with behind(site.access) as (net, access):
            net.unanswered = WRITER_OF_COMMANDS
            retried = Retried(controller(site, access))
            async with living(retried):
                await retried.until_error("no answer within")
                net.unanswered = None
                await eventually(lambda: spoken(site, 1 + 4))
        await check(site)

    asyncio.run(run())


def test_controller_whose_partitions_are_dealt_out_while_it_takes_them_over_goes_on_in_its_group(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the second one takes to join, the first one waits for its writer.
    monkeypatch.setattr("streams.kafka.clients.ANSWER_S", HANG_S)

    async def run() -> None:
        site = Inside(kafka, ACTING)
        await begin(site)
        await write(site, list(story(2)))
        async with behind(site.access) as (net, access):
            first, second = (Retried(controller(site, access)) for _ in range(2))
            net.unanswered = WRITER_OF_COMMANDS
            async with living(first):

                async def takes() -> bool:
                    return bool(first.service.partitions)

                await eventually(takes)
                async with living(second):

                    async def gave_up() -> bool:
                        return not first.service.partitions

                    await eventually(gave_up)
                    net.unanswered = None

                    async def settled() -> bool:
                        both = first.service, second.service
                        return sum(map(len, (each.partitions for each in both))) == 1 and all(
                            each.settled for each in both
                        )

                    await eventually(settled)
                    await eventually(lambda: spoken(site, 1 + 4))
                    assert (first.errors, second.errors) == ([], [])
        await check(site)

    asyncio.run(run())


def test_controller_stops_before_what_it_cannot_read_says_where_and_leaves_the_group(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, ACTING)
        await begin(site)
        records = list(story(4))
        await write(site, records[:4])
        service = controller(site)
        async with living(service) as tasks:
            await eventually(lambda: spoken(site, 5))
            async with site.access.producer() as producer:
                shape = await open_ledger(site.access, producer, site.config)
                next_one = msgspec.structs.replace(
                    configuration_for(site.config, shape), fold_version=FOLD_VERSION + 1, digest="0" * 64
                )
                await producer.send_and_wait(site.access.names.of("ledger"), entry_of(next_one).value, partition=0)
            await write(site, records[4:])
            with pytest.raises(
                LedgerConflict, match=rf"partition 0, offset 5: .* version {FOLD_VERSION + 1} of the fold"
            ):
                await asyncio.wait_for(tasks[0], HANG_S)
        before = await commands(site)
        # The next life says the same at once: those that can read on are not disturbed.
        with pytest.raises(LedgerConflict, match="offset 5"):
            await asyncio.wait_for(service.run(), HANG_S)
        assert await commands(site) == before

    asyncio.run(run())
