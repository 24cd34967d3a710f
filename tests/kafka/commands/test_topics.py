"""`unship topics` and `unship check` on a real Kafka."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.kafka.shared import skip_or_fail
from tests.waiting import HANG_S
from unship.topics import TOPICS

UNSHIP = Path(sys.executable).with_name("unship")
DAY_MS = 86_400_000


@pytest.fixture
def unship(kafka, tmp_path):
    """Return a function that runs `unship` on this test's topics and returns code, stdout and stderr."""
    config = tmp_path / "unship.yaml"

    def run(*words, topics=None, log=None):
        section = {"prefix": kafka.prefix, "partitions": 2, "ledger_partitions": 2, **(topics or {})}
        config.write_text(json.dumps({"log": log or kafka.log, "kafka": {"topics": section}}), encoding="utf-8")
        done = subprocess.run([UNSHIP, "-c", config, *words], capture_output=True, text=True, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return run


def on(kafka, job):
    """Run a coroutine with an administration client."""

    async def within():
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        try:
            return await job(admin)
        finally:
            await admin.close()

    return asyncio.run(within())


def settings_of(kafka, topic):
    async def job(admin):
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.names.of(topic))])
        return {entry[0]: entry[1] for entry in response.resources[0][4]}

    return on(kafka, job)


def set_on(kafka, topic, **settings):
    configs = {name.replace("_", "."): value for name, value in settings.items()}
    resource = ConfigResource(ConfigResourceType.TOPIC, kafka.names.of(topic), configs=configs)
    on(kafka, lambda admin: admin.alter_configs([resource]))


def seen(kafka):
    return {name for name in on(kafka, lambda admin: admin.list_topics()) if name.startswith(kafka.prefix)}


def actions(text):
    return {step["topic"]: step["action"] for step in json.loads(text)["topics"]}


def test_renewing_before_anything_was_read_is_refused_and_leaves_the_ledger_alone(unship):
    assert unship("topics", "apply")[0] == 0
    code, _, said = unship("topics", "renew", "0")
    assert (code, "the ledger is empty" in said) == (2, True)
    assert unship("topics", "plan")[0] == 0


def test_topics_are_planned_then_made_then_in_order(kafka, unship):
    code, out, _ = unship("--json", "topics", "plan")
    assert (code, set(actions(out).values())) == (1, {"create"})
    assert seen(kafka) == set()
    code, out, _ = unship("topics", "apply")
    assert code == 0
    assert out.count("created ") == len(TOPICS)
    assert seen(kafka) == {kafka.names.of(topic) for topic in TOPICS}
    code, out, _ = unship("--json", "topics", "plan")
    assert (code, set(actions(out).values())) == (0, {"none"})
    sources = settings_of(kafka, "predictions")
    assert sources["message.timestamp.type"] == "LogAppendTime"
    assert int(sources["retention.ms"]) == 8 * DAY_MS + 600_000
    assert settings_of(kafka, "control")["cleanup.policy"] == "compact"
    code, out, _ = unship("--json", "check")
    lines = json.loads(out)["lines"]
    assert code == 0
    assert [line for line in lines if line["level"] == "error"] == []
    assert "co-partitioning" in {line["what"] for line in lines}


def test_harmful_setting_is_repaired_and_the_operators_own_are_kept(kafka, unship):
    assert unship("topics", "apply")[0] == 0
    set_on(kafka, "feedback", retention_ms="1000", message_timestamp_type="CreateTime", compression_type="zstd")
    code, out, _ = unship("check")
    assert code == 1
    assert "message.timestamp.type is CreateTime, expected LogAppendTime" in out
    assert "fix: run: unship topics apply" in out
    assert unship("topics", "apply")[0] == 0
    settings = settings_of(kafka, "feedback")
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert int(settings["retention.ms"]) == 8 * DAY_MS + 600_000
    assert settings["compression.type"] == "zstd"
    assert unship("topics", "plan")[0] == 0


def test_empty_topics_grow_and_those_with_records_are_left_and_named(kafka, unship):
    assert unship("topics", "apply")[0] == 0
    asyncio.run(produce(kafka.bootstrap, kafka.names.of("predictions"), b"x"))
    code, out, err = unship("--json", "topics", "apply", topics={"partitions": 3})
    assert code == 1
    assert actions(out)["feedback"] == "change"
    assert actions(out)["predictions"] == "refuse"
    assert "2 partitions, expected 3, and it holds records" in err
    code, out, _ = unship("check", topics={"partitions": 3})
    assert code == 1
    assert "2 partitions of predictions, 3 of feedback" in out


async def produce(bootstrap, topic, value):
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


def test_rate_of_predictions_is_taken_from_the_topic(kafka, unship):
    assert unship("topics", "apply")[0] == 0
    asyncio.run(produce(kafka.bootstrap, kafka.names.of("predictions"), b"x"))
    code, out, _ = unship("--json", "check")
    memory, labels = [line for line in json.loads(out)["lines"] if line["what"] in ("memory", "labels")]
    assert code == 0
    assert labels["found"] == "too few outcomes yet to measure their delay"
    assert memory["found"].startswith("0.0 predictions/s x 168.2 h (horizon and early of defaults) x 650 bytes")


@pytest.mark.parametrize("words", [("topics", "plan"), ("topics", "apply"), ("check",)])
def test_broker_that_is_not_there_gives_code_3(unship, words):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound and not listening, so that nobody else takes the port
        code, out, err = unship(*words, log=f"kafka://127.0.0.1:{bound.getsockname()[1]}")
    assert code == 3
    assert "can be used as PLAINTEXT" in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("topics", "plan"), ("check",)])
def test_broker_that_does_not_answer_gives_code_4(unship, words):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code, out, err = unship(*words, "--timeout", "0.5", log=f"kafka://127.0.0.1:{silent.getsockname()[1]}")
    assert code == 4
    assert "within 0.5 s" in out + err


def test_embedded_log_has_no_topics_to_make_and_is_checked_all_the_same(unship, tmp_path):
    code, _, err = unship("topics", "plan", log="embedded:./log")
    assert code == 2
    assert "needs no topics" in err
    code, out, _ = unship("check", log="embedded:./log")
    assert code == 0
    assert "none in" in out
    assert not (tmp_path / "log").exists()


def test_broker_that_makes_topics_by_itself_is_not_made_to(own_kafka, tmp_path):
    with own_kafka(settings={"auto.create.topics.enable": "true"}) as kafka:
        done = subprocess.run([UNSHIP, "--log", kafka.log, "check"], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 1
        assert "does not exist" in done.stdout

        async def names():
            admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
            await admin.start()
            try:
                await admin.create_topics([NewTopic("other", 1, 1)])
                while "other" not in (found := await asyncio.wait_for(admin.list_topics(), HANG_S)):
                    await asyncio.sleep(0.02)
                return found
            finally:
                await admin.close()

        assert asyncio.run(names()) == ["other"]


def test_client_that_is_not_ours_sees_what_was_made(kafka, unship):
    if shutil.which("kcat") is None:
        skip_or_fail("there is no kcat; run: make tools")
    assert unship("topics", "apply")[0] == 0
    topic = kafka.names.of("feedback")
    command = ["kcat", "-b", kafka.bootstrap, "-t", topic]
    subprocess.run([*command, "-P", "-K", "|"], input="p-1|{}\n", text=True, check=True, timeout=HANG_S)
    read = [*command, "-C", "-e", "-q", "-f", "%k %s"]
    assert subprocess.run(read, capture_output=True, text=True, check=True, timeout=HANG_S).stdout == "p-1 {}"
