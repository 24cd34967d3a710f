"""What the copier does where copying fails, and with what it refuses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.kafka.clients import Access
from streams.kafka.copier import Copier, Place
from streams.ledger.entries import read_entry
from unship.topics import TopicNames

ACCESS = Access({"bootstrap_servers": ["nowhere:1"]}, TopicNames("t."))


class Failing(Copier):
    """Fails at first as nobody foresaw."""

    copied = 0

    async def start(self) -> None:
        pass

    async def copy(self, place: Place, value: bytes | None, headers: Any) -> None:
        self.copied += 1
        if self.copied == 1:
            raise AssertionError("Unrecognized partition")


def test_record_whose_copy_fails_in_any_way_is_copied_again(caplog: pytest.LogCaptureFixture) -> None:
    copier = Failing(ACCESS, parse(""), lambda: None)
    with caplog.at_level(logging.WARNING, "unship"):
        asyncio.run(copier.copy_surely(Place("deployments", 0, 0, 0), b"{}", ()))
    assert copier.copied == 2
    assert "Unrecognized partition" in caplog.text


class Remembering(Copier):
    """Remembers what it would send, by topic."""

    def __init__(self) -> None:
        super().__init__(ACCESS, parse(""), lambda: None)
        self.sent: dict[str, list[bytes]] = {}
        self.partitions: list[int | None] = []

    async def _send(self, topic: str, value: bytes, key: bytes | None, partition: int | None) -> None:
        self.sent.setdefault(topic, []).append(value)
        if topic == "ledger":
            self.partitions.append(partition)

    def copied(self, *records: tuple[str, int, bytes | None]) -> Remembering:
        for topic, offset, value in records:
            asyncio.run(self.copy(Place(topic, 0, offset, 1_000), value, ()))
        return self

    def counted(self) -> dict[str, int]:
        fold = Fold(parse(""))
        for value in self.sent["ledger"]:
            fold.step(read_entry(value))
        return dict(fold.counts())


REFUSED: list[tuple[str, int, bytes | None]] = [
    ("deployments", 0, None),
    ("deployments", 1, b'{"model": "m", "version": "v2", "status": "Live"}'),
    ("operator", 0, b'{"act": "hold", "model": "m", "reason": "night", "by": "ann"}'),
    ("acks", 0, b"nope"),
]


def test_deployments_acts_and_acks_that_are_refused_are_counted_in_the_first_ledger_partition() -> None:
    copier = Remembering().copied(*REFUSED)
    assert copier.counted() == {"BAD_EVENT": 2, "UNSIGNED_ACT": 1, "BAD_JSON": 1}
    assert copier.partitions == [0] * 4
    assert len(copier.sent["rejected"]) == 4


def test_refused_record_that_two_copiers_read_is_counted_once() -> None:
    copier = Remembering().copied(*REFUSED, *REFUSED)
    assert copier.counted() == {"BAD_EVENT": 2, "UNSIGNED_ACT": 1, "BAD_JSON": 1}
