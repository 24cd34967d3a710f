"""Complete recordings with signed checkpoints: of an embedded log, and of a log with several partitions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from actions.checkpoints import CHECKPOINT_KEY, checkpoint_bytes, read_checkpoint
from actions.journal import decision_bytes
from actions.reconcile import Timing, due_commands
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.fold import Fold
from streams.join.partition import Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of
from streams.ledger.records import Deployed, Record
from streams.pipeline import configuration_record
from streams.recordings.lines import Place, Taken, order_of
from streams.topics.partitioner import partition_of
from tests.keys import BY_DEPLOYER, SIGNER, TRUST, signed
from tests.pipelines import source_records_of
from tests.sites import Site, taken_of
from tests.worlds.busy import CONFIG, busy_lines
from unship.codec import decode_line, decode_value, encode_line
from unship.commands import encode_command
from unship.events import Ack, Deployment, Feedback, Prediction
from unship.log.embedded.log import Message
from unship.signing import Trust
from unship.topics import SOURCES

SOURCE_PARTITIONS, LEDGER_PARTITIONS, MODELS = 3, 2, ("m", "churn")


@dataclass
class Complete:
    """The records of a complete recording in their order, and the keys that its controller is trusted by."""

    records: list[Taken]
    trust: Trust


def embedded_recording(folder: Path, seed: int = 1) -> Complete:
    """Let a monitor with keys live through a rollback, with snapshots now and then and one at the end."""
    site, rng = Site(folder / "log", busy_lines(seed), parse(CONFIG)), np.random.default_rng(seed)
    live = site.monitor()
    live.timing = Timing(beat_ms=500, valid_ms=600_000)
    while site.sent < len(site.lines):
        site.send(int(rng.integers(20, 200)))
        if rng.random() < 0.3:
            site.order(act="resume")
            site.log.append("deployments", [Message(b"{", b"x")])
        live.step()
        for command in live.publish():
            for name in ("r0", "r1"):
                ack = Ack(
                    model="m", replica=name, boot="b", epoch=command.epoch, stage="serving", serving=command.serve
                )
                site.log.append("acks", [Message(encode_line(ack), f"m/{name}".encode())])
        if rng.random() < 0.3:
            live.save_snapshot()
    live.step()
    live.publish()
    live.step()
    live.save_snapshot()
    records = taken_of(site.log)
    site.log.close()
    return Complete(records, TRUST)


class Broker:
    """Topics with several partitions, in memory; what is appended gets the time of the clock."""

    def __init__(self) -> None:
        self.now = 0
        self.records: dict[Place, list[Taken]] = defaultdict(list)
        self.ends: dict[Place, int] = defaultdict(int)

    def append(
        self, topic: str, number: int, value: bytes, key: bytes | None = None, headers: object = (), skip: int = 0
    ) -> Taken:
        place = (topic, number)
        offset = self.ends[place] + skip
        self.ends[place] = offset + 1
        taken = Taken(topic, number, offset, self.now, key, value, tuple(headers))  # type: ignore[arg-type]
        self.records[place].append(taken)
        return taken


def broker_recording(seed: int = 1) -> Complete:
    """Let readers and controllers of several partitions work in turns, with transactions that take offsets."""
    broker, config, rng = Broker(), parse(CONFIG), np.random.default_rng(seed)
    site = _Controllers(broker, config)
    events = [_named(model, line) for i, model in enumerate(MODELS) for line in busy_lines(seed + i, 900)]
    events.sort(key=lambda event: event.ts or 0)
    broker.now = events[0].ts or 0
    site.begin()
    for count, event in enumerate(events):
        broker.now = max(broker.now, event.ts or 0)
        if isinstance(event, Deployment):
            site.deploy(event)
        else:
            topic = "predictions" if isinstance(event, Prediction) else "feedback"
            key = event.id.encode()
            gap = int(rng.random() < 0.05 and count > 100)
            broker.append(topic, partition_of(key, SOURCE_PARTITIONS), encode_line(event), key, skip=gap)
        if rng.random() < 0.02:
            site.round()
        if rng.random() < 0.005:
            site.checkpoint()
    site.round()
    site.checkpoint()
    records = [taken for records in broker.records.values() for taken in records]
    heads = [taken for taken in records if (taken.topic, taken.offset) == ("ledger", 0)]
    return Complete(heads + sorted((t for t in records if t not in heads), key=order_of), TRUST)


def _named(model: str, line: bytes) -> Prediction | Feedback | Deployment:
    event = decode_line(line)
    if isinstance(event, Deployment):
        return msgspec.structs.replace(event, model=model)
    if isinstance(event, Prediction):
        return msgspec.structs.replace(event, model=model, id=f"{model}-{event.id}", replica=f"{model}-r0")
    assert isinstance(event, Feedback)
    return msgspec.structs.replace(event, id=f"{model}-{event.id}")


class _Controllers:
    """The readers of all source partitions and the controllers of all ledger partitions, in one place."""

    def __init__(self, broker: Broker, config: Config) -> None:
        self.broker = broker
        self.folds = [Fold(config) for _ in range(LEDGER_PARTITIONS)]
        self.published: list[dict[str, object]] = [{} for _ in self.folds]
        self.own: list[dict[str, int]] = [{} for _ in self.folds]
        self.readers = [
            SourceReader(
                config, n, Position(SOURCE_PARTITIONS), ledger_partitions=LEDGER_PARTITIONS, route=self.ledger_of
            )
            for n in range(SOURCE_PARTITIONS)
        ]
        self.first = msgspec.structs.replace(
            configuration_record(config), partitions=SOURCE_PARTITIONS, ledger_partitions=LEDGER_PARTITIONS
        )

    def ledger_of(self, model: str) -> int:
        return partition_of(model.encode(), LEDGER_PARTITIONS)

    def begin(self) -> None:
        for number in range(LEDGER_PARTITIONS):
            self.fold(number, self.first)

    def fold(self, number: int, record: Record) -> None:
        entry, fold = entry_of(record), self.folds[number]
        self.broker.append("ledger", number, entry.value)
        for decision in fold.step(entry):
            value = decision_bytes(decision)
            self.journal(number, value, decision.model.encode())
        for fact in list(fold.fleet.owed.values()):
            for other in range(LEDGER_PARTITIONS):
                self.fold(other, fact)

    def journal(self, number: int, value: bytes, key: bytes) -> None:
        taken = self.broker.append("decisions", number, value, key, SIGNER.sign_decision(value))
        self.own[number][f"decisions/{number}"] = taken.offset + 1

    def deploy(self, event: Deployment) -> None:
        number, message = self.ledger_of(event.model), signed(event, self.broker.now)
        taken = self.broker.append("deployments", number, message.value or b"", message.key, message.headers)
        read = decode_value("deployment", message.value)
        assert isinstance(read, Deployment)
        place = ("deployments", number, taken.offset, taken.append_ts)
        self.fold(number, Deployed(-1, msgspec.structs.replace(read, at=place), BY_DEPLOYER))

    def round(self) -> None:
        for reader in self.readers:
            for side, topic in enumerate(("predictions", "feedback")):
                records = self.broker.records[topic, reader.partition]
                page = [taken for taken in records if taken.offset >= reader.next_offset(side)]
                reader.give(side, source_records_of([Raw(t.offset, t.append_ts, t.value) for t in page]))
            reader.advance((True, True))
            if reader.moved:
                for number, batch in enumerate(reader.flush((self.broker.now, self.broker.now))):
                    self.fold(number, batch)
                for facts in reader.replica_facts():
                    self.fold(self.ledger_of(facts.model), facts)
                reader.position()
        for number, fold in enumerate(self.folds):
            self.command(number, fold)

    def command(self, number: int, fold: Fold) -> None:
        published = self.published[number]
        timing = Timing(beat_ms=500, valid_ms=600_000)
        due = due_commands(fold.commanded(), published, "prod", self.broker.now, timing)  # type: ignore[arg-type]
        for place, command in enumerate(due):
            value = encode_command(command)
            # The end of the transaction before takes an offset.
            skip = int(place == 0 and self.broker.ends["control", number] > 0)
            taken = self.broker.append("control", number, value, command.model.encode(), SIGNER.sign(value), skip=skip)
            self.own[number][f"control/{number}"] = taken.offset + 1
            published[command.model] = command

    def checkpoint(self) -> None:
        for number, fold in enumerate(self.folds):
            value = checkpoint_bytes(fold.checkpoint("prod", number, self.broker.now, self.own[number]))
            self.journal(number, value, CHECKPOINT_KEY)


def proven_ends(records: list[Taken], whole: list[Taken]) -> dict[Place, int]:
    """Return up to where nothing may be removed unnoticed, by the newest checkpoints that are left of a recording."""
    ends: dict[Place, int] = {}
    for taken in records:
        checkpoint = read_checkpoint(taken.value) if taken.key == CHECKPOINT_KEY else None
        if checkpoint is not None:
            for name, end in checkpoint.ends.items():
                topic, _, number = name.partition("/")
                ends[topic, int(number)] = end
            ends["ledger", taken.partition] = checkpoint.ledger
            ends["decisions", taken.partition] = taken.offset
    last = {taken.partition: taken for taken in whole if taken.key == CHECKPOINT_KEY}
    if all(taken in records for taken in last.values()):
        # The last checkpoints are of a ledger that covers all events.
        ends |= {(t.topic, t.partition): t.offset + 1 for t in whole if t.topic in (*SOURCES, "deployments")}
    return ends
