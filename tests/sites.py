"""Logs that a monitor lived through: an embedded one that a recording is played into, and topics in memory."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actions.checkpoints import CHECKPOINT_KEY
from actions.reconcile import Signer, Timing
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.monitor import EmbeddedMonitor
from streams.embedded.topics import EmbeddedTopics
from streams.recordings.lines import Taken, read_line, records_of
from streams.recordings.writing import Span, record_topics
from tests.keys import SIGNER, TRUST, signed
from tests.worlds.busy import CONFIG, busy_lines
from unship.codec import decode_line, encode_line
from unship.events import Ack, Deployment, Feedback, Prediction
from unship.log.embedded.log import EmbeddedLog, Message
from unship.signing import Trust

TOPIC = {Prediction: "predictions", Feedback: "feedback"}


class Clock:
    """A wall clock that stands where the newest line put it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Site:
    """An embedded log that a recording is played into, piece by piece."""

    def __init__(self, folder: Path, lines: list[bytes], config: Config) -> None:
        self.clock = Clock()
        self.log = EmbeddedLog(folder, now_ms=self.clock, fsync=False)
        self.config = config
        self.lines = lines
        self.sent = 0

    def monitor(self, signer: Signer = SIGNER) -> EmbeddedMonitor:
        return EmbeddedMonitor(self.log, self.config, self.clock, signer, Timing(beat_ms=60_000, valid_ms=600_000))

    def send(self, count: int) -> None:
        for line in self.lines[self.sent : self.sent + count]:
            event = decode_line(line)
            assert isinstance(event, Prediction | Feedback | Deployment)
            assert event.ts is not None
            self.clock.now = max(self.clock.now, event.ts)
            if isinstance(event, Deployment):
                self.deploy(event)
            else:
                self.log.append(TOPIC[type(event)], [Message(line, event.id.encode())])
        self.sent += count

    def deploy(self, event: Deployment | dict[str, Any] | bytes) -> None:
        """Append a deployment as a release pipeline does."""
        self.log.append("deployments", [signed(event, self.clock.now)])

    def order(self, **fields: Any) -> None:
        """Append an operator's act for the model `m`."""
        act = {"model": "m", "reason": "drill", "by": "ann", **fields}
        self.log.append("operator", [signed(act, self.clock.now)])

    def ledger(self) -> list[bytes]:
        return [taken.value or b"" for taken in records_of(EmbeddedTopics(self.log), "ledger", 0)]

    def journal(self) -> list[bytes]:
        return [record.value or b"" for record in self.log.read("decisions", 0) if record.key != CHECKPOINT_KEY]


@dataclass
class Played:
    """A log that was lived through, its recording, and who may sign."""

    log: EmbeddedLog
    taken: list[Taken]
    trust: Trust

    def journal(self) -> list[bytes]:
        return [t.value or b"" for t in self.taken if t.topic == "decisions" and t.key != CHECKPOINT_KEY]


def play(folder: Path, seed: int, lines: list[bytes] | None = None, config: str = CONFIG) -> Played:
    """Let a monitor live through a rollback, in rounds of random size with noise between, and die now and then."""
    site, rng = Site(folder / "log", lines or busy_lines(seed), parse(config)), np.random.default_rng(seed)
    live, held = site.monitor(), False
    while site.sent < len(site.lines):
        site.send(int(rng.integers(1, 400)))
        if rng.random() < 0.3:
            site.log.append("predictions", [Message(b"{", b"x")])
            site.log.append("feedback", [Message(None, b"x"), Message(b'{"id":"p1",  "truth":1}', b"p1")])
            site.log.append("operator", [Message(b"{}", b"m")])
        if not held and site.sent > 100:
            site.order(act="resume")
            held = True
        if rng.random() < 0.8:
            live.step()
            for command in live.publish():
                ack = Ack(
                    model="m", replica="r0", boot="b", epoch=command.epoch, stage="serving", serving=command.serve
                )
                site.log.append("acks", [Message(encode_line(ack), b"m/r0")])
        if rng.random() < 0.15:
            live.save_snapshot()
        if rng.random() < 0.2:
            live = site.monitor()
    live = site.monitor()
    live.step()
    live.publish()
    return Played(site.log, taken_of(site.log), TRUST)


def taken_of(log: EmbeddedLog, span: Span | None = None) -> list[Taken]:
    stream = io.BytesIO()
    record_topics(EmbeddedTopics(log), stream, *(() if span is None else (span,)))
    return [read_line(line) for line in stream.getvalue().splitlines()]


class Memory:
    """Topics with several partitions, in memory."""

    def __init__(self, records: list[Taken]) -> None:
        self.given: Counter[tuple[str, int, int]] = Counter()
        self.records: dict[tuple[str, int], list[Taken]] = {}
        for taken in records:
            self.records.setdefault((taken.topic, taken.partition), []).append(taken)

    def partitions(self, topic: str) -> int:
        return max((number + 1 for name, number in self.records if name == topic), default=0)

    def first(self, topic: str, partition: int) -> int:
        return self.records[topic, partition][0].offset

    def ends(self) -> dict[tuple[str, int], int]:
        return {place: records[-1].offset + 1 for place, records in self.records.items()}

    def read(self, topic: str, partition: int, offset: int) -> list[Taken]:
        page = [taken for taken in self.records[topic, partition] if taken.offset >= offset][:50]
        self.given.update((topic, partition, taken.offset) for taken in page)
        return page
