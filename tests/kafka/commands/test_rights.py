"""The table of rights, given to principals of a real Kafka that enforces it: each role can do its work and no more."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import CreateAclsRequest

from console.cli import main as command_line
from streams.kafka import control_service as controller
from streams.kafka import ingest_service as ingest
from streams.kafka.admin import administering
from streams.kafka.clients import Access
from streams.topics.rights import GROUPS, ROLES, TRANSACTION_PREFIX, rights
from tests.kafka.cluster import MECHANISM
from tests.waiting import HANG_S
from unship.topics import TOPICS, TopicNames

UNSHIP = Path(sys.executable).with_name("unship")
NAMES = TopicNames()
USERS = {role: f"secret-of-{role}" for role in ROLES}
# The numbers of Kafka's protocol.
RESOURCES = {"topic": 2, "group": 3, "transactional_id": 5}
OPERATIONS = {"READ": 3, "WRITE": 4, "CREATE": 5, "ALTER": 7, "DESCRIBE_CONFIGS": 10, "ALTER_CONFIGS": 11}
LITERAL, PREFIXED, ALLOW = 3, 4, 3


@pytest.fixture(scope="module")
def secured(own_kafka):
    """Start a broker that knows a user per role, with the rights of the table and nothing more, and make the topics."""
    with own_kafka(users={**USERS, "stranger": "secret-of-stranger"}) as kafka:
        asyncio.run(grant(kafka, NAMES))
        done = unship(kafka, "installer", "topics", "apply")
        assert done.returncode == 0, done.stderr
        yield kafka


async def grant(kafka, names):
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        for role in ROLES:
            for right in rights(role, names):
                pattern = PREFIXED if right.prefixed else LITERAL
                resource, operation = RESOURCES[right.resource], OPERATIONS[right.operation]
                request = CreateAclsRequest(resource, right.name, pattern, f"User:{role}", "*", operation, ALLOW)
                response = await admin._send_to_controller(request)
                assert response.creation_responses[0][0] == 0, response
    finally:
        await admin.close()


def options(kafka, user):
    return {**kafka.client(user), "bootstrap_servers": kafka.bootstrap.split(",")}


def variables(kafka, user):
    """Return the environment with which a program says that it is one of the users."""
    return {
        "UNSHIP_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "UNSHIP_SECURITY_MECHANISM": MECHANISM,
        "UNSHIP_SECURITY_USERNAME": user,
        "UNSHIP_SECURITY_PASSWORD": kafka.users[user],
    }


def unship(kafka, user, *words):
    """Run `unship` as one of the users."""
    command = [UNSHIP, "--log", kafka.log, "--json", *words]
    return subprocess.run(command, capture_output=True, text=True, env=variables(kafka, user), cwd=kafka.folder)


async def write(kafka, user, topic, idempotent=True, names=NAMES, value=b"{}"):
    producer = AIOKafkaProducer(**kafka.client(user), acks="all", enable_idempotence=idempotent)
    try:
        await producer.start()
        await producer.send_and_wait(names.of(topic), value, key=b"k")
    finally:
        await producer.stop()


async def write_fenced(kafka, user, topic):
    producer = AIOKafkaProducer(**kafka.client(user), transactional_id=f"{NAMES.prefix}{TRANSACTION_PREFIX}0")
    try:
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(NAMES.of(topic), b"{}", key=b"k")
    finally:
        await producer.stop()


async def read(kafka, user, topic, names=NAMES, holding=b""):
    """Read a topic without a group, until a record is there that holds some bytes; return it."""
    consumer = AIOKafkaConsumer(**kafka.client(user), auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        await consumer.start()
        consumer.assign([TopicPartition(names.of(topic), number) for number in range(8)])
        async with asyncio.timeout(HANG_S):
            while holding not in (record := await consumer.getone()).value:
                pass
            return record
    finally:
        await consumer.stop()


async def read_in_group(kafka, user, topic, group):
    consumer = AIOKafkaConsumer(NAMES.of(topic), **kafka.client(user), group_id=group, auto_offset_reset="earliest")
    try:
        await consumer.start()
        return await asyncio.wait_for(consumer.getone(), HANG_S)
    finally:
        await consumer.stop()


def test_each_role_can_do_its_work(secured):
    async def work():
        await write(secured, "emitter", "predictions")
        await write(secured, "emitter", "deployments")
        await write(secured, "emitter", "acks")
        await write(secured, "labeler", "feedback")
        await write(secured, "operator", "operator")
        group = f"{NAMES.prefix}{GROUPS[0]}"
        assert (await read_in_group(secured, "monitor", "predictions", group)).key == b"k"
        assert (await read(secured, "monitor", "operator")).key == b"k"
        for topic in ("ledger", "decisions", "alerts", "rewind", "snapshots", "rejected"):
            await write(secured, "monitor", topic)
        await write_fenced(secured, "monitor", "control")
        assert (await read(secured, "emitter", "control")).value == b"{}"
        assert (await read(secured, "operator", "decisions")).value == b"{}"
        for topic in TOPICS:
            assert (await read(secured, "auditor", topic)).value == b"{}"

    asyncio.run(work())


FORBIDDEN = {
    "emitter": (
        "feedback",
        "control",
        "ledger",
    ),
    "labeler": (
        "predictions",
        "control",
    ),
    "monitor": (
        "predictions",
        "feedback",
        "operator",
    ),
    "operator": (
        "control",
        "ledger",
    ),
    "auditor": ("decisions",),
    "installer": ("predictions",),
    "stranger": ("feedback",),
}


def test_what_a_role_may_not_write_is_refused(secured):
    async def refused(user, topic):
        # Without idempotence, so that it is the right to this topic that is asked for, and no other.
        with pytest.raises(TopicAuthorizationFailedError):
            await write(secured, user, topic, idempotent=False)
        return True

    for user, topics in FORBIDDEN.items():
        for topic in topics:
            assert asyncio.run(refused(user, topic)), (user, topic)


def test_only_the_monitor_joins_its_groups_and_fences_its_writers(secured):
    group = f"{NAMES.prefix}{GROUPS[0]}"
    with pytest.raises(GroupAuthorizationFailedError):
        asyncio.run(read_in_group(secured, "auditor", "predictions", group))
    with pytest.raises(TransactionalIdAuthorizationFailed):
        asyncio.run(write_fenced(secured, "emitter", "control"))


def test_probes_say_of_every_right_what_the_broker_enforces(secured):
    async def compare(user, own):
        async with administering(Access(options(secured, user), NAMES)) as admin:
            every = sorted({right for role in ROLES for right in rights(role, NAMES)})
            lacks = await admin.missing(every)
            return [right for right in every if right not in lacks], sorted(own)

    for role in ROLES:
        found, expected = asyncio.run(compare(role, rights(role, NAMES)))
        assert found == expected, role
    found, _ = asyncio.run(compare("stranger", []))
    assert found == []


def test_check_is_content_with_the_credentials_of_each_role(secured):
    for role in ROLES:
        done = unship(secured, role, "check", "--role", role)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = json.loads(done.stdout)["lines"]
        (line,) = [line for line in lines if line["what"] == "rights"]
        assert (line["level"], line["found"]) == ("ok", f"all that the role {role} needs")


def test_check_names_each_right_that_credentials_lack(secured):
    done = unship(secured, "labeler", "check", "--role", "emitter")
    assert done.returncode == 1
    lines = json.loads(done.stdout)["lines"]
    found = {(line["what"], line["found"]) for line in lines if line["level"] == "error"}
    expected = {("right READ", "missing on topic unship.control")}
    expected |= {
        ("right WRITE", f"missing on topic unship.{topic}") for topic in ("predictions", "deployments", "acks")
    }
    assert found == expected
    assert "WRITE unship.feedback" in done.stdout


def test_wrong_password_gives_code_3_and_says_so_without_it(secured):
    environment = {**variables(secured, "monitor"), "UNSHIP_SECURITY_PASSWORD": "hunter2"}
    command = [UNSHIP, "--log", secured.log, "topics", "plan"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=secured.folder)
    assert done.returncode == 3
    assert "SASL_PLAINTEXT monitor" in done.stderr
    assert "Authentication failed" in done.stderr
    assert "hunter2" not in done.stderr


def test_plan_without_the_right_to_look_names_the_right(secured):
    done = unship(secured, "labeler", "topics", "plan")
    assert done.returncode == 2
    assert "lacks the right" in done.stderr


def test_table_names_the_groups_and_the_fence_that_the_monitor_uses():
    assert {controller.GROUP, ingest.GROUP} <= set(GROUPS)


def test_monitor_runs_with_the_rights_of_its_role_alone(secured):
    names = TopicNames("run.")
    asyncio.run(grant(secured, names))
    config = secured.folder / "run.yaml"
    topics = {"prefix": names.prefix, "partitions": 8, "ledger_partitions": 8}
    config.write_text(json.dumps({"log": secured.log, "kafka": {"topics": topics}}), encoding="utf-8")
    assert unship(secured, "installer", "-c", str(config), "topics", "apply").returncode == 0
    command = [UNSHIP, "-c", config, "run"]
    with (secured.folder / "run.log").open("w") as output:
        process = subprocess.Popen(
            command, env=variables(secured, "monitor"), cwd=secured.folder, stdout=output, stderr=output
        )
    try:
        prediction = b'{"id":"k","model":"m","version":"v1","output":1}'
        asyncio.run(write(secured, "emitter", "predictions", names=names, value=prediction))
        asyncio.run(write(secured, "labeler", "feedback", names=names, value=b'{"id":"k","truth":1}'))
        assert asyncio.run(read(secured, "auditor", "ledger", names, holding=b"v1")).value
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(HANG_S)
    written = (secured.folder / "run.log").read_text()
    assert "uthorization" not in written, written


def test_command_line_knows_the_roles_of_the_table():
    (role,) = [option for option in command_line.commands["check"].params if option.name == "role"]
    assert isinstance(role.type, click.Choice)
    assert list(role.type.choices) == list(ROLES)
