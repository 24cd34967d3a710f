"""Each private part of aiokafka and of Faust that is used: where a release changes one, a sentence names it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from streams.kafka import faust_transport
from streams.kafka.private_parts import PROBES, cancel_sending, group_of, leader_of, read_committed

AIOKAFKA = f"aiokafka {aiokafka.__version__}: {{}}; look at streams/kafka/private_parts.py before you raise its limit"
FAUST = (
    f"faust-streaming {faust.__version__}: {{}}; look at streams/kafka/faust_transport.py before you raise its limit"
)
PLACE = TopicPartition("t", 0)


def made(look: Callable[[AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient], None]) -> None:
    """Look at clients that are not connected."""

    async def work() -> None:
        consumer, producer = AIOKafkaConsumer(group_id="g"), AIOKafkaProducer()
        try:
            look(consumer, producer, AIOKafkaAdminClient())
        finally:
            await consumer.stop()
            await producer.stop()

    asyncio.run(work())


def test_consumer_can_ask_for_the_metadata_of_all_topics() -> None:
    def look(consumer: Any, *_: Any) -> None:
        ask = getattr(getattr(consumer, "_client", None), "fetch_all_metadata", None)
        assert inspect.iscoroutinefunction(ask), AIOKAFKA.format(
            "a consumer has no _client.fetch_all_metadata, by which a topic that is not read is looked up"
        )
        assert callable(getattr(ClusterMetadata, "partitions_for_topic", None)), AIOKAFKA.format(
            "metadata has no partitions_for_topic"
        )

    made(look)


def test_consumer_knows_the_leader_of_a_partition() -> None:
    def look(consumer: Any, *_: Any) -> None:
        cluster = getattr(getattr(consumer, "_client", None), "cluster", None)
        assert callable(getattr(cluster, "leader_for_partition", None)), AIOKAFKA.format(
            "a consumer has no _client.cluster.leader_for_partition, so another leader would not be noticed"
        )
        assert leader_of(consumer, PLACE) is None, AIOKAFKA.format("a leader is known of a topic that nobody asked for")

    made(look)


def test_consumer_knows_its_group() -> None:
    def look(consumer: Any, *_: Any) -> None:
        assert getattr(consumer, "_group_id", None) == "g", AIOKAFKA.format("a consumer has no _group_id")
        assert group_of(consumer) == "g"

    made(look)


def test_consumer_that_is_not_started_can_be_made_to_read_committed_records_only() -> None:
    def look(consumer: Any, *_: Any) -> None:
        assert getattr(consumer, "_isolation_level", None) == "read_uncommitted", AIOKAFKA.format(
            "a consumer does not keep its isolation level as _isolation_level until it starts"
        )
        read_committed(consumer)
        assert "isolation_level=self._isolation_level" in inspect.getsource(AIOKafkaConsumer.start), AIOKAFKA.format(
            "AIOKafkaConsumer.start does not use _isolation_level, so records of aborted transactions would be read"
        )

    made(look)


def test_task_that_sends_can_be_cancelled() -> None:
    def look(_: Any, producer: Any, __: Any) -> None:
        sender = getattr(producer, "_sender", None)
        assert hasattr(sender, "_sender_task"), AIOKAFKA.format(
            "a producer has no _sender._sender_task, so one that waits for an answer for ever could not be ended"
        )
        cancel_sending(producer)

    made(look)


def test_administration_client_sends_any_request_to_any_broker() -> None:
    def look(_: Any, __: Any, admin: Any) -> None:
        client = getattr(admin, "_client", None)
        assert inspect.iscoroutinefunction(getattr(client, "send", None)), AIOKAFKA.format(
            "an administration client has no _client.send, by which rights and ends are asked for"
        )
        assert callable(getattr(client, "get_random_node", None)), AIOKAFKA.format("_client has no get_random_node")

    made(look)


def structs_of(request: Any) -> list[Any]:
    """Return a request in each version that it can be sent as."""
    found = []
    for kind in request._CLASSES:
        with suppress(IncompatibleBrokerVersion):
            found.append(request.build(kind))
    assert found
    return found


CODES = {
    ("group", "READ"): ("error_code",),
    ("transactional_id", "WRITE"): ("error_code",),
    ("topic", "READ"): ("topics", 1, "partitions", 1, "error_code"),
    ("topic", "WRITE"): ("topics", 1, "partitions", 1, "error_code"),
    ("topic", "DESCRIBE_CONFIGS"): ("resources", 0, "error_code"),
    ("topic", "CREATE"): ("topic_errors", 1, "error_code"),
    ("topic", "ALTER"): ("topic_errors", 1, "error_code"),
    ("topic", "ALTER_CONFIGS"): ("resources", 0, "error_code"),
}


@pytest.mark.parametrize("right", PROBES, ids="-".join)
def test_request_that_probes_a_right_can_be_sent_and_its_answer_has_the_code_where_it_is_read(
    right: tuple[str, str],
) -> None:
    """The code is a field of the response, or of the entries of its arrays, at the position where it is read."""
    request, _ = PROBES[right]
    for built in structs_of(request("a-topic")):
        assert built.encode(), AIOKAFKA.format(f"the request for {right} cannot be encoded")
        schema = built.RESPONSE_TYPE.SCHEMA
        path = list(CODES[right])
        while len(path) > 1:
            name, position = path.pop(0), path.pop(0)
            assert name in schema.names, AIOKAFKA.format(f"the answer to {right} has no {name}: {schema.names}")
            schema = schema.fields[schema.names.index(name)].array_of
            where = schema.names[position]
            expected = path[0]
            assert where == expected or where.startswith(expected), AIOKAFKA.format(
                f"the answer to {right} has {where} where {expected} is read: {schema.names}"
            )
        if right[0] != "topic":
            assert "error_code" in schema.names, AIOKAFKA.format(f"the answer to {right} has no error_code")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (MetadataRequest(["t"], allow_auto_topic_creation=False), "topics"),
        (OffsetRequest(-1, 0, [("t", [(0, -1)])]), "topics"),
    ],
    ids=["metadata", "offsets"],
)
def test_requests_for_metadata_and_offsets_can_be_built(request_: Any, field: str) -> None:
    newest = structs_of(request_)[-1]
    assert newest.encode()
    assert field in newest.RESPONSE_TYPE.SCHEMA.names, AIOKAFKA.format(f"an answer has no {field}")


OVERRIDDEN = [
    (AIOKafkaConsumerThread, faust_transport._ConsumerThread, "_create_worker_consumer"),
    (AIOKafkaConsumerThread, faust_transport._ConsumerThread, "seek_to_committed"),
    (AIOKafkaConsumerThread, faust_transport._ConsumerThread, "on_thread_stop"),
    (AIOKafkaConsumerThread, faust_transport._ConsumerThread, "verify_event_path"),
    (Consumer, faust_transport._Consumer, "perform_seek"),
    (Consumer, faust_transport._Consumer, "_new_offset"),
    (Consumer, faust_transport._Consumer, "_new_consumer_thread"),
]


@pytest.mark.parametrize(("theirs", "ours", "name"), OVERRIDDEN, ids=[name for _, _, name in OVERRIDDEN])
def test_method_of_faust_that_is_overridden_is_still_there_with_its_arguments(
    theirs: type, ours: type, name: str
) -> None:
    before = getattr(theirs, name, None)
    assert before is not None, FAUST.format(f"{theirs.__name__} has no {name}, so what overrides it is never called")
    found = list(inspect.signature(before).parameters)
    assert found == list(inspect.signature(getattr(ours, name)).parameters), FAUST.format(
        f"{theirs.__name__}.{name} takes {found}"
    )


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (Consumer._new_offset, "_acked"),
        (Consumer._new_offset, "_acked_index"),
        (Consumer._new_offset, "_gap"),
        (Consumer._new_offset, "_committed_offset"),
        (AIOKafkaConsumerThread.on_thread_stop, "_consumer"),
        (AIOKafkaConsumerThread.seek_to_committed, "_ensure_consumer"),
        (AIOKafkaConsumerThread.seek_to_committed, "call_thread"),
        (Consumer.perform_seek, "seek_to_committed"),
    ],
)
def test_attribute_of_faust_that_is_used_is_used_by_faust_for_the_same(where: Any, name: str) -> None:
    assert f"self.{name}" in inspect.getsource(where), FAUST.format(f"{where.__qualname__} does not use self.{name}")


def test_transport_of_faust_makes_its_consumer_from_the_class_that_it_names() -> None:
    assert Transport.Consumer is Consumer, FAUST.format("Transport.Consumer is not the consumer of aiokafka's driver")
    assert faust_transport.FaustTransport.Consumer is faust_transport._Consumer
