"""What the writer passes to the producer: batches of plain or packed records, each with the events it carries."""

from __future__ import annotations

from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from unship.log.kafka.writer import BATCH_BYTES, built
from unship.log.link import Message
from unship.log.packed import pack_values


class Noting(BatchBuilder):  # type: ignore[misc]  # aiokafka has no types
    """The producer's own batch, which also notes what went into it."""

    def __init__(self) -> None:
        super().__init__(BATCH_BYTES, 0)
        self.records: list[tuple[bytes, bytes]] = []

    def append(self, *, key: Any, value: Any, **others: Any) -> Any:
        taken = super().append(key=key, value=value, **others)
        if taken is not None:
            self.records.append((key, value))
        return taken


def messages(count: int, size: int = 30) -> list[Message]:
    return [Message(b'{"id":"%0*d"}' % (size - 9, number), b"p-%d" % number) for number in range(count)]


def batches(given: list[Message], **settings: bool) -> list[tuple[Any, list[Message]]]:
    found: list[tuple[Any, list[Message]]] = list(built(Noting, given, **{"pack": False, "alone": False, **settings}))
    assert all(batch.closed() for batch, _ in found)
    assert [message for _, held in found for message in held] == given
    return found


def test_plain_messages_are_records_of_one_batch():
    given = messages(100)
    ((batch, _),) = batches(given)
    assert batch.records == [(message.key, message.value) for message in given]


def test_packed_messages_are_few_records_of_one_batch():
    given = messages(100)
    ((batch, held),) = batches(given, pack=True)
    packed = [value for value, _ in pack_values(message.value or b"" for message in given)]
    assert batch.records == [(b"p-0", packed[0]), (b"p-64", packed[1])]
    assert len(held) == 100


def test_batches_end_between_packed_records():
    given = messages(200, size=1_000)
    found = batches(given, pack=True)
    assert [len(batch.records) for batch, _ in found] == [1, 1, 1, 1]
    assert [len(held) for _, held in found] == [64, 64, 64, 8]


def test_messages_that_are_tried_alone_are_plain_records():
    given = messages(3)
    found = batches(given, pack=True, alone=True)
    assert [batch.records for batch, _ in found] == [[(message.key, message.value)] for message in given]


def test_record_larger_than_a_batch_is_in_a_batch_of_its_own():
    small, large = messages(2), messages(1, size=BATCH_BYTES)
    found = batches([small[0], *large, small[1]], pack=True)
    assert [[key for key, _ in batch.records] for batch, _ in found] == [[b"p-0"], [b"p-0"], [b"p-1"]]


def test_headers_of_a_signed_record_are_sent_with_it():
    signed = Message(b"{}", b"m", (("unship_sig", b"s"), ("unship_key", b"k")))
    for alone in (False, True):
        built_batches = batches([signed, *messages(2)], alone=alone)
        records = [
            record
            for batch, _ in built_batches
            for part in iter(MemoryRecords(bytes(batch._build())).next_batch, None)
            for record in part
        ]
        assert [(record.value, record.headers) for record in records] == [
            (b"{}", [("unship_sig", b"s"), ("unship_key", b"k")]),
            *((message.value, []) for message in messages(2)),
        ]
