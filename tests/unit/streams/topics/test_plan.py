"""What becomes of topics: new ones are whole, existing ones are repaired, and nothing is ever taken away."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config.parse import parse
from streams.topics.plan import APPEND_TIME, Step, TopicFacts, needed_ms, plan, specs
from unship.topics import COMPACTED, SOURCES, TOPICS

DAY_MS = 86_400_000
CONFIG = parse(
    "models: {slow: {labels: {horizon: 30d, early: 1h}}}\nkafka: {topics: {partitions: 4, ledger_partitions: 2}}"
)
WANTED = specs(CONFIG)
BY_TOPIC = {spec.topic: spec for spec in WANTED}


def made(step: Step) -> TopicFacts:
    """Return what a topic is like after its step, made by a broker that does as it is told."""
    return TopicFacts(
        step.partitions, step.replication, {name: after for name, (_, after) in step.settings.items()}, True
    )


def changed(facts: TopicFacts, **settings: str) -> TopicFacts:
    dotted = {name.replace("_", "."): value for name, value in settings.items()}
    return msgspec.structs.replace(facts, settings={**facts.settings, **dotted})


GOOD = {step.name: made(step) for step in plan(WANTED, {}, 3, None)}


def step_for(topic: str, facts: TopicFacts, brokers: int = 3) -> Step:
    (step,) = [step for step in plan(WANTED, {**GOOD, f"unship.{topic}": facts}, brokers, None) if step.topic == topic]
    return step


def test_new_topics_are_those_of_the_contract() -> None:
    assert [spec.topic for spec in WANTED] == list(TOPICS)
    steps = plan(WANTED, {}, brokers=3, copies=None)
    assert {step.action for step in steps} == {"create"}
    assert {step.replication for step in steps} == {3}
    assert {step.settings["min.insync.replicas"] for step in steps} == {(None, "2")}
    for step in steps:
        policy = "compact" if step.topic in COMPACTED else "delete"
        assert step.settings["cleanup.policy"] == (None, policy)
        assert ("message.timestamp.type" in step.settings) == (step.topic in APPEND_TIME)
        assert step.partitions == {"rewind": 1}.get(step.topic, 4 if step.topic in SOURCES else 2)


def test_events_are_kept_for_the_longest_window_and_a_day_of_absence() -> None:
    assert needed_ms(CONFIG) == 31 * DAY_MS + DAY_MS // 24
    for topic in SOURCES:
        assert BY_TOPIC[topic].settings["retention.ms"].value == str(needed_ms(CONFIG))
        assert BY_TOPIC[topic].settings["retention.bytes"].value == "-1"
    for topic in ("ledger", "decisions", "operator", "deployments"):
        assert BY_TOPIC[topic].settings["retention.ms"].value == "-1"


def test_topics_as_they_were_made_need_nothing() -> None:
    assert {step.action for step in plan(WANTED, GOOD, 3, None)} == {"none"}


@pytest.mark.parametrize(
    ("topic", "setting", "bad", "repaired"),
    [
        ("predictions", "cleanup.policy", "compact", "delete"),
        ("predictions", "message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("ledger", "message.timestamp.type", "CreateTime", "LogAppendTime"),
        ("feedback", "retention.ms", str(DAY_MS), str(needed_ms(CONFIG))),
        ("feedback", "retention.bytes", "1000000", "-1"),
        ("ledger", "retention.ms", str(DAY_MS), str(needed_ms(CONFIG))),
        ("ledger", "max.message.bytes", "1048588", str(8 << 20)),
        ("control", "cleanup.policy", "compact,delete", "compact"),
        ("control", "unclean.leader.election.enable", "true", "false"),
    ],
)
def test_setting_that_would_lose_or_falsify_records_is_repaired(
    topic: str, setting: str, bad: str, repaired: str
) -> None:
    step = step_for(topic, changed(GOOD[f"unship.{topic}"], **{setting.replace(".", "_"): bad}))
    assert (step.action, step.settings) == ("change", {setting: (bad, repaired)})


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        ("feedback", "retention.ms", "-1"),
        ("feedback", "retention.ms", str(400 * DAY_MS)),
        ("ledger", "retention.ms", str(needed_ms(CONFIG))),
        ("snapshots", "max.message.bytes", str(64 << 20)),
        ("control", "segment.ms", "1"),
        ("predictions", "compression.type", "zstd"),
    ],
)
def test_choice_of_the_brokers_operator_that_harms_nothing_is_left_alone(topic: str, setting: str, value: str) -> None:
    step = step_for(topic, changed(GOOD[f"unship.{topic}"], **{setting.replace(".", "_"): value}))
    assert (step.action, step.settings) == ("none", {})


def test_empty_topic_grows_and_one_with_records_is_refused_with_the_way_out() -> None:
    small = msgspec.structs.replace(GOOD["unship.predictions"], partitions=3)
    step = step_for("predictions", small)
    assert (step.action, step.grows, step.partitions) == ("change", True, 4)
    step = step_for("predictions", msgspec.structs.replace(small, empty=False))
    assert (step.action, step.grows, step.partitions) == ("refuse", False, 3)
    assert step.why.startswith(
        "3 partitions, expected 4, and it holds records, whose keys would move: set kafka.topics.partitions: 3"
    )
    step = step_for("ledger", msgspec.structs.replace(GOOD["unship.ledger"], partitions=9))
    assert (step.action, step.partitions) == ("refuse", 9)
    assert "partitions cannot be taken away: set kafka.topics.ledger_partitions: 9" in step.why


def test_more_copies_than_brokers_are_refused_by_name() -> None:
    steps = plan(WANTED, {}, brokers=2, copies=3)
    assert {step.action for step in steps} == {"refuse"}
    assert "3 copies need as many brokers, and there are 2" in steps[0].why
    assert {step.replication for step in plan(WANTED, {}, brokers=2, copies=None)} == {2}
    assert {step.settings["min.insync.replicas"] for step in plan(WANTED, {}, 2, None)} == {(None, "1")}


values = {
    "cleanup.policy": st.sampled_from(["delete", "compact", "compact,delete"]),
    "message.timestamp.type": st.sampled_from(["CreateTime", "LogAppendTime"]),
    "retention.ms": st.integers(-1, 400 * DAY_MS).map(str),
    "retention.bytes": st.integers(-1, 10**12).map(str),
    "max.message.bytes": st.integers(0, 1 << 27).map(str),
}
found = st.builds(
    TopicFacts, st.integers(1, 9), st.integers(1, 3), st.fixed_dictionaries({}, optional=values), st.booleans()
)


@given(st.dictionaries(st.sampled_from([spec.name for spec in WANTED]), found))
def test_plan_takes_nothing_away_and_once_done_leaves_only_what_it_refused(facts: dict[str, TopicFacts]) -> None:
    steps = plan(WANTED, facts, 3, None)
    for step in steps:
        if step.name in facts:
            assert step.partitions >= facts[step.name].partitions
            assert step.action != "create"
        for name, (before, after) in step.settings.items():
            if before is not None and re.match(r"retention|max\.message", name):
                assert int(after) == -1 or (int(before) != -1 and int(after) > int(before))
    then = {
        step.name: TopicFacts(
            step.partitions,
            step.replication,
            (facts[step.name].settings if step.name in facts else {}) | made(step).settings,
            facts[step.name].empty if step.name in facts else True,
        )
        for step in steps
    }
    again = plan(WANTED, then, 3, None)
    assert [step.topic for step in again if step.action != "none"] == [
        step.topic for step in steps if step.action == "refuse"
    ]
