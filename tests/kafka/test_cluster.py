"""The tests' own Kafka: what it promises to the tests that use it."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.kafka.jars import version
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


def running(pid):
    """Whether a process exists and has not ended; one that its parent did not collect yet has."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def first_line(process):
    assert process.stdout is not None
    return process.stdout.readline()


def children(pid):
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listing.stdout.split()]


async def write_and_read(options, topic, values):
    async with AIOKafkaProducer(**options, acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
    return await read(options, topic)


async def read(options, topic):
    consumer = AIOKafkaConsumer(**options, auto_offset_reset="earliest", enable_auto_commit=False)
    async with consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while len(found) < end:
            found += [record.value for record in (await consumer.getmany(timeout_ms=500)).get(partition, [])]
        return found


async def create(options, topic, replication=1):
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(topic, 1, replication)])
    finally:
        await admin.close()


def test_shared_broker_takes_records_and_each_test_has_names_of_its_own(kafka, request):
    options = {"bootstrap_servers": kafka.bootstrap}
    topic = kafka.names.of("ledger")
    assert request.node.name[:40] in topic
    asyncio.run(create(options, topic))
    assert asyncio.run(write_and_read(options, topic, [b"a", b"b"])) == [b"a", b"b"]


def test_three_brokers_keep_every_record_when_one_is_killed_and_all_are_frozen(own_kafka):
    with own_kafka(3) as kafka:
        options = kafka.client()
        asyncio.run(create(options, "kept", replication=3))
        assert asyncio.run(write_and_read(options, "kept", [b"1"])) == [b"1"]
        killed = kafka.brokers[0].pid
        kafka.brokers[0].kill()
        assert not running(killed)
        assert asyncio.run(write_and_read(options, "kept", [b"2"])) == [b"1", b"2"]
        kafka.brokers[0].start()
        kafka.wait_ready()
        assert asyncio.run(read(options, "kept")) == [b"1", b"2"]
        for broker in kafka.brokers:
            broker.pause()
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(create(options, "other"), 1.0))
        for broker in kafka.brokers:
            broker.resume()
        kafka.wait_ready()
        assert asyncio.run(read(options, "kept")) == [b"1", b"2"]
        data = kafka.folder
    assert not data.exists()


def test_no_broker_outlives_a_killed_process_that_started_it(own_kafka):
    assert own_kafka
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kafka"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert re.fullmatch(r"127\.0\.0\.1:\d+\n", first_line(process))
        (broker,) = children(process.pid)
        process.kill()
        until(lambda: not running(broker))


def test_shared_broker_ends_after_its_last_user(own_kafka, tmp_path):
    assert own_kafka
    code = (
        "import sys, pathlib; from tests.kafka.shared import shared_broker\n"
        "with shared_broker(pathlib.Path(sys.argv[1])) as address:\n"
        "    print(address, flush=True); sys.stdin.read()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    users = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    addresses = {first_line(user) for user in users}
    assert len(addresses) == 1
    port = int(addresses.pop().rpartition(":")[2])
    users[0].communicate()
    asyncio.run(create({"bootstrap_servers": f"127.0.0.1:{port}"}, "still-there"))
    users[1].kill()
    users[1].communicate()
    until(lambda: not listening(port))


def listening(port):
    with contextlib.suppress(OSError):
        return asyncio.run(connects(port))
    return False


async def connects(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True


def test_version_is_written_once():
    assert re.fullmatch(r"\d+\.\d+\.\d+", version())
