"""The lines of `unship check`: what is wrong is an error with its fix, what is risky a warning."""

import msgspec
import pytest

from console.checks.installation import Volume, beyond, holdback_lines, memory_lines, rights_lines, topics_lines, worst
from streams.config.parse import parse
from streams.topics.plan import TopicFacts, plan, specs
from streams.topics.rights import ROLES, Right, rights
from unship.topics import TOPICS, TopicNames

CONFIG = parse("models: {slow: {labels: {horizon: 10d, early: 0s}}}")
WANTED = specs(CONFIG)
NAMES = TopicNames()
EVERY = {role: rights(role, NAMES) for role in ROLES}


def lines_for(facts):
    return topics_lines(plan(WANTED, facts, 3, None), facts)


@pytest.fixture
def good():
    return {
        step.name: TopicFacts(
            step.partitions, 3, {name: after for name, (_, after) in step.settings.items()}, empty=True
        )
        for step in plan(WANTED, {}, 3, None)
    }


@pytest.mark.parametrize(
    ("policy", "level", "parts"),
    [
        ("mode: act", "ok", ("holdback of m", "5 %", "raised to 30 %", "for 14d")),
        ("mode: observe", "warning", ("holdback of m", "mode observe", "set policy.mode")),
    ],
)
def test_holdback_is_a_line_and_one_that_comes_to_nothing_a_warning(policy, level, parts):
    config = parse(f"models: {{m: {{policy: {{{policy}, holdback: {{share: 5%, raise_to: 30%}}}}}}, n: {{}}}}")
    (line,) = holdback_lines(config)
    assert line.level == level
    assert all(part in f"{line.what} {line.found} {line.fix}" for part in parts)


def test_holdback_that_ends_before_an_outcome_is_judged_is_a_warning():
    kept = "policy: {mode: act, holdback: {share: 5%, keep: 1h}}"
    (line,) = holdback_lines(parse(f"models: {{m: {{labels: {{mature_after: 2d}}, {kept}}}}}"))
    assert (line.level, "1h" in line.found, "2d" in line.found) == ("warning", True, True)


def test_good_topics_give_only_good_lines(good):
    assert {line.level for line in lines_for(good)} == {"ok"}


def test_missing_topic_is_an_error_that_names_the_command(good):
    del good["unship.ledger"]
    (line,) = [line for line in lines_for(good) if line.level != "ok"]
    assert (line.level, line.what, line.fix) == ("error", "topic unship.ledger", "run: unship topics apply")


def test_sources_with_unequal_partitions_are_an_error_of_their_own(good):
    good["unship.feedback"] = msgspec.structs.replace(good["unship.feedback"], partitions=6, empty=False)
    found = {line.what: line for line in lines_for(good) if line.level == "error"}
    assert set(found) == {"topic unship.feedback", "co-partitioning"}
    assert "8 partitions of predictions, 6 of feedback" in found["co-partitioning"].found


def test_wrong_clock_names_what_is_and_what_is_expected(good):
    good["unship.feedback"].settings["message.timestamp.type"] = "CreateTime"
    (line,) = [line for line in lines_for(good) if line.level != "ok"]
    assert line.found == "message.timestamp.type is CreateTime, expected LogAppendTime"


def test_retention_shorter_than_horizon_and_absence_shows_the_arithmetic(good):
    good["unship.feedback"].settings["retention.ms"] = "86400000"
    (line,) = [line for line in lines_for(good) if line.level != "ok"]
    assert (line.level, line.fix) == ("error", "run: unship topics apply")
    assert line.found == (
        "retention.ms is 86400000 (1d), expected 950400000 (11d: the longest labels.horizon and early, and 1d of "
        "monitor downtime)"
    )


def test_few_copies_are_a_warning(good):
    good["unship.acks"] = msgspec.structs.replace(good["unship.acks"], replication=1)
    good["unship.ledger"].settings["min.insync.replicas"] = "1"
    found = [line for line in lines_for(good) if line.level != "ok"]
    assert [line.level for line in found] == ["warning", "warning"]
    assert "1 topics have a replication factor below 3" in found[0].found
    assert "min.insync.replicas is 1 for unship.ledger" in found[1].found


def test_every_topic_has_a_writer_and_a_reader_and_events_are_written_by_no_monitor():
    for topic in TOPICS:
        assert any(topic in role.writes for role in ROLES.values()), topic
        assert any(topic in role.reads for role in ROLES.values()), topic
    assert not {"predictions", "feedback", "deployments", "operator", "acks"} & set(ROLES["monitor"].writes)
    for command_writer in ("emitter", "labeler", "operator", "auditor", "installer"):
        assert "control" not in ROLES[command_writer].writes
    assert ROLES["auditor"].writes == ()


def test_missing_right_is_an_error_and_one_too_many_a_warning():
    read = Right("topic", "unship.control", "READ")
    lines = rights_lines("emitter", [read], [])
    assert [(line.level, line.what) for line in lines] == [("error", "right READ")]
    more = beyond("emitter", EVERY)
    assert Right("topic", "unship.control", "WRITE") in more
    assert not set(more) & set(EVERY["emitter"])
    ok, warning = rights_lines("emitter", [], more)
    assert (ok.level, warning.level) == ("ok", "warning")
    assert "WRITE unship.control" in warning.found


def test_memory_is_computed_from_the_rate_and_the_longest_window():
    # 10 predictions a second, ten days, 650 bytes each.
    volume = Volume(predictions=36_000, span_ms=3_600_000)
    (line,) = memory_lines(CONFIG, volume, memory_bytes=32_000_000_000)
    assert line.level == "ok"
    assert line.found == "10.0 predictions/s x 240.0 h (horizon and early of slow) x 650 bytes = 5.6 GB in the join"
    assert memory_lines(CONFIG, volume, memory_bytes=8_000_000_000)[0].level == "warning"
    assert memory_lines(CONFIG, volume, memory_bytes=4_000_000_000)[0].level == "error"
    assert memory_lines(CONFIG, volume, memory_bytes=None)[0].level == "ok"
    assert memory_lines(CONFIG, Volume(0, 0), 1)[0].level == "ok"


def test_worst_line_counts():
    assert worst([]) == "ok"
    assert (
        worst([*rights_lines("labeler", [], []), *rights_lines("labeler", [Right("topic", "x", "READ")], [])])
        == "error"
    )
