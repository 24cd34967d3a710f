"""The audit of what was taken from a live log: clean whatever the rounds were, and whatever was changed is found."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from actions.journal import decision_bytes
from streams.audit.ledger_audit import audit_topics
from streams.audit.result import AuditResult
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.topics import EmbeddedTopics
from streams.fold.fold import Fold
from streams.join.partition import Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Batch, Begun, Configured, Record
from streams.pipeline import configuration_record
from streams.recordings.lines import Taken, line_of
from streams.recordings.recorded_topics import RecordedTopics
from streams.recordings.writing import Span
from streams.topics.partitioner import partition_of
from tests.keys import TRUST
from tests.pipelines import source_records_of, step
from tests.sites import Memory, Played, Site, play, taken_of
from tests.worlds.busy import CONFIG, busy_lines, untidy_lines
from unship.codec import decode_line
from unship.errors import RecordingError
from unship.events import Feedback, Prediction
from unship.signing import Trust


def audited(lines: list[bytes], trust: Trust | None) -> AuditResult:
    topics = RecordedTopics(io.BytesIO(b"".join(line + b"\n" for line in lines)))
    return audit_topics(topics, trust, topics.damage)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("played"), 1)


@pytest.mark.parametrize("seed", range(2, 6))
def test_recording_of_random_rounds_and_restarts_is_clean(tmp_path: Path, seed: int) -> None:
    lived = play(tmp_path, seed)
    result = audited([line_of(taken) for taken in lived.taken], lived.trust)
    assert result.first_difference is None
    assert result.remarks == []
    assert result.reproduced == result.decisions == len(result.ids) >= 3
    assert result.ledger_records == lived.log.end("ledger")
    assert audit_topics(EmbeddedTopics(lived.log), lived.trust) == result


@pytest.mark.parametrize("labels", ["mature_after: 0s", "mature_after: 1s", "mature_after: 1s, missing: negative"])
@pytest.mark.parametrize("seed", range(2))
def test_untidy_events_are_clean_under_every_rule_for_labels(tmp_path: Path, labels: str, seed: int) -> None:
    losses = "losses: [zero_one, brier, {latency: {objective_ms: 10}}], slices: {by: [country]}"
    config = f"defaults: {{{losses}, labels: {{horizon: 2s, early: 1s, {labels}}}, policy: {{mode: act}}}}"
    lived = play(tmp_path, seed, untidy_lines(seed), config)
    result = audited([line_of(taken) for taken in lived.taken], lived.trust)
    assert result.first_difference is None
    assert result.remarks == []
    assert result.ledger_records == lived.log.end("ledger")


def test_ledger_that_goes_on_under_another_configuration_is_clean(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", busy_lines(1), parse(CONFIG))
    for change in ("", "brier, zero_one", "zero_one, brier"):
        site.config = parse(CONFIG.replace("zero_one", change) if change else CONFIG)
        live = site.monitor()
        for _ in range(5):
            site.send(250)
            live.step()
    result = audited([line_of(taken) for taken in taken_of(site.log)], TRUST)
    assert result.first_difference is None
    assert result.remarks == []
    ledger = [entry.value or b"" for entry in site.log.read("ledger", 0)]
    assert result.ledger_records == len(ledger)
    assert sum(isinstance(read_entry(value).record, Configured) for value in ledger) == 3


def test_audit_without_keys_says_that_signatures_were_not_checked(played: Played) -> None:
    result = audited([line_of(taken) for taken in played.taken], None)
    assert result.first_difference is None
    (remark,) = result.remarks
    assert f"{played.log.end('control')} commands and 4 acts and deployments" in remark


# What was changed is found and named

Change = Callable[[Taken], Taken]


def value(old: bytes, new: bytes) -> Change:
    def change(taken: Taken) -> Taken:
        assert taken.value is not None
        assert old in taken.value
        return msgspec.structs.replace(taken, value=taken.value.replace(old, new, 1))

    return change


def record(change: Callable[[Any], Any]) -> Change:
    """Change a ledger record, and encode it as its writer would have."""

    def changed(taken: Taken) -> Taken:
        return msgspec.structs.replace(taken, value=entry_of(change(read_entry(taken.value).record)).value)

    return changed


def rows(**columns: Callable[[Any], Any]) -> Change:
    """Change columns of the outcomes of a batch's first part."""

    def change(batch: Batch) -> Batch:
        first, *others = batch.parts
        new = {name: made(getattr(first.outcomes, name)) for name, made in columns.items()}
        first = msgspec.structs.replace(first, outcomes=msgspec.structs.replace(first.outcomes, **new))
        return msgspec.structs.replace(batch, parts=[first, *others])

    return record(change)


def changed(played: Played, topic: str, wanted: bytes, change: Change, skip: int = 0) -> list[bytes]:
    """Return the recording's lines with one record changed: the first of a topic that has some bytes."""
    places = [i for i, t in enumerate(played.taken) if t.topic == topic and wanted in (t.value or b"")]
    lines = [line_of(taken) for taken in played.taken]
    lines[places[skip]] = line_of(change(played.taken[places[skip]]))
    return lines


def found(lines: list[bytes], trust: Trust | None) -> str:
    difference = audited(lines, trust).first_difference
    assert difference is not None
    return difference.sentence()


@pytest.mark.parametrize(
    ("topic", "wanted", "change", "named"),
    [
        ("predictions", b'"p300"', value(b'"output":1', b'"output":0'), "answered class at predictions@"),
        ("predictions", b'"p300"', value(b'"output":1', b'"output" :1'), "the source records predictions[0]@"),
        ("predictions", b'"p300"', value(b'"country":"', b'"country":"X'), "outcome at predictions@"),
        ("predictions", b'"p300"', value(b'"p300"', b'"q300"'), "outcome at predictions@"),
        ("predictions", b'"p300"', value(b'"v1"', b'"v3"'), "prediction at predictions@"),
        ("predictions", b'"p300"', lambda t: msgspec.structs.replace(t, append_ts=t.append_ts + 2), "predicted_at"),
        ("feedback", b'"p300"', value(b'"truth":1', b'"truth":0'), "classes at predictions@"),
        ("feedback", b'"p300"', value(b'"source":"', b'"source":"x'), "source is"),
        ("deployments", b'"v2"', value(b'"v2"', b'"v3"'), "and its copy in the ledger: version"),
        ("acks", b'"serving"', value(b'"serving":"v1"', b'"serving":"v5"'), "change.version is v5"),
        ("acks", b'"serving"', value(b'"replica":"r0"', b'"replica":"r9"'), "change.replica is r9"),
        ("operator", b"drill", value(b"drill", b"Drill"), "and its copy in the ledger: reason"),
        ("operator", b"drill", lambda t: msgspec.structs.replace(t, headers=()), "its signature"),
        (
            "ledger",
            b"configuration",
            record(lambda r: replace(r, config={**r.config, "log": "embedded:./elsewhere", "max_simultaneous": 7})),
            "ledger record 0 (configured)",
        ),
        ("ledger", b"batch", record(lambda r: replace(r, source_digest="0" + r.source_digest)), "their digest"),
        (
            "ledger",
            b"\xa2DE\xa2FR",
            rows(slices=lambda s: [replace(s[0], values=["FR", "DE", *s[0].values[2:]])]),
            "slices.country",
        ),
        ("ledger", b"\xa2DE\xa2FR", rows(losses=lambda losses: 1 - losses), "losses[0] is"),
        ("ledger", b"\xa4tick", record(lambda r: replace(r, clock=r.clock + 1)), ": chain is "),
        (
            "ledger",
            b"\xaadeployment",
            record(lambda r: replace(r, event=replace(r.event, version="v4"))),
            "and its copy in the ledger",
        ),
        ("ledger", b"batch", lambda t: replace(t, value=(t.value or b"") + b"\xc0"), "cannot be read"),
        ("decisions", b'"rollback"', value(b'"outcomes":', b'"outcomes":1'), "outcomes is 1"),
        ("decisions", b'"rollback"', value(b'{"type"', b'{ "type"'), "its bytes is other bytes"),
        ("control", b'"rollback"', value(b'"serve":"v1"', b'"serve":"v2"'), "its signature is BAD_SIGNATURE"),
    ],
)
def test_change_that_mattered_is_found_and_named(
    played: Played, topic: str, wanted: bytes, change: Change, named: str
) -> None:
    assert named in found(changed(played, topic, wanted, change), played.trust)


@pytest.mark.parametrize("topic", ["predictions", "feedback", "ledger", "deployments", "decisions"])
def test_record_that_was_taken_out_is_found(played: Played, topic: str) -> None:
    places = [i for i, taken in enumerate(played.taken) if taken.topic == topic]
    lines = [line_of(taken) for taken in played.taken]
    del lines[places[len(places) // 2]]
    assert found(lines, played.trust)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (value(b'"serve":"v1"', b'"serve":"v2"'), "serve is v2 in the recording, v1"),
        (value(b'"decision":"d-', b'"decision":"e-'), "decision is e-"),
        (value(b'"version":"v2"', b'"version":"v7"'), "quarantine[0].version is v7"),
        (value(b'"epoch":[0,', b'"epoch":[1,'), "epoch is [1, "),
        (value(b'"model":"m"', b'"model":"n"'), "nothing was desired then"),
    ],
)
def test_command_that_says_something_else_is_found_without_keys_too(played: Played, change: Change, named: str) -> None:
    assert named in found(changed(played, "control", b'"action":"rollback"', change), None)


def appended(played: Played, after: bytes, value: bytes) -> list[bytes]:
    """Return the lines with a further decision, directly behind the one with some bytes."""
    lines = []
    moved = 0
    for taken in played.taken:
        if taken.topic != "decisions":
            lines.append(line_of(taken))
            continue
        lines.append(line_of(msgspec.structs.replace(taken, offset=taken.offset + moved)))
        if after in (taken.value or b""):
            moved = 1
            lines.append(line_of(msgspec.structs.replace(taken, offset=taken.offset + 1, value=value)))
    return lines


def test_decision_that_stands_twice_is_read_once_and_another_of_its_epoch_is_equivocation(played: Played) -> None:
    rollback = next(
        t.value or b"" for t in played.taken if t.topic == "decisions" and b'"rollback"' in (t.value or b"")
    )
    assert audited(appended(played, b'"rollback"', rollback), None).first_difference is None
    other = rollback.replace(b'"to":"v1"', b'"to":"v2"')
    assert "EQUIVOCATION" in found(appended(played, b'"rollback"', other), None)


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bit_anywhere_before_the_last_decision_is_found(played: Played, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rests = json.loads(played.journal()[-1])["provenance"]
    ends = {topic: rests[topic]["0"][1] for topic in ("predictions", "feedback")} | {"ledger": rests["ledger"][1] + 1}
    topic = str(rng.choice(["predictions", "feedback", "ledger", "decisions", "control", "deployments"]))
    end = ends.get(topic, 1 << 40)
    places = [i for i, t in enumerate(played.taken) if t.topic == topic and t.offset < end]
    place = int(rng.choice(places))
    lines = [line_of(taken) for taken in played.taken]
    # The value: what else the line says is its place, which the next lines contradict or which changes nothing.
    size = len(lines[place]) if not (at := lines[place].rfind(b',"at":[')) else at
    line = bytearray(lines[place])
    line[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    lines[place] = bytes(line).replace(b"\n", b"\r")
    assert found(lines, played.trust)


def test_decision_before_the_first_difference_is_reproduced_and_one_after_it_is_known(played: Played) -> None:
    first, *_, last = (json.loads(value)["id"] for value in played.journal())
    result = audited(changed(played, "decisions", b'"rollback"', value(b'"outcomes":', b'"outcomes":1')), None)
    assert first in result.ids
    assert last not in result.ids
    assert {first, last} <= result.known


def test_span_is_audited_as_far_as_it_goes_and_says_so(played: Played) -> None:
    middle = played.taken[len(played.taken) // 2].append_ts
    taken = taken_of(played.log, Span(since=middle))
    result = audited([line_of(t) for t in taken], None)
    assert result.first_difference is None
    assert "sources are not there from the first record on" in result.remarks[0]
    assert result.reproduced >= 3
    # The sources that are there are bound to their batches by digests all the same.
    last = [i for i, t in enumerate(taken) if t.topic == "predictions"][-30]
    lines = [line_of(t) for t in taken]
    lines[last] = line_of(value(b'"output":1', b'"output":0')(taken[last]))
    assert "their digest" in found(lines, None)


def test_ledger_that_does_not_begin_with_its_configuration_is_found(played: Played) -> None:
    lines = [line_of(t) for t in played.taken if t.topic != "ledger" or t.offset > 0]
    assert found(lines, None) == "ledger[0]: record 0 is absent"


def test_recording_without_ledger_and_decisions_is_refused(played: Played) -> None:
    lines = [line_of(t) for t in played.taken if t.topic not in ("ledger", "decisions")]
    with pytest.raises(RecordingError, match="no ledger and no decision"):
        audited(lines, None)


# Several readers


def partitioned(seed: int, count: int) -> list[Taken]:
    """Return the busy site's predictions and feedback in partitions, offsets with holes as transactions leave them."""
    rng = np.random.default_rng(seed)
    ends: dict[tuple[str, int], int] = {}
    records, now = [], 0
    for line in busy_lines(seed, 900):
        event = decode_line(line)
        if not isinstance(event, Prediction | Feedback):
            continue
        now = max(now, event.ts or 0)
        topic = "predictions" if isinstance(event, Prediction) else "feedback"
        number = partition_of(event.id.encode(), count)
        end = ends.get((topic, number), 0)
        offset = end + (1 if end and rng.random() < 0.05 else 0)
        ends[topic, number] = offset + 1
        records.append(Taken(topic, number, offset, now, event.id.encode(), line))
    return records


def read_twice(sources: Memory, config: Config, count: int, seed: int, incarnation: int = 0) -> list[Record]:
    """Let three readers of each partition run at once, each from a position that an earlier one has committed."""
    rng = np.random.default_rng(seed)
    first = msgspec.structs.replace(configuration_record(config), partitions=count)
    ledger: list[Record] = [first]
    positions = [[Position(count, incarnation)] for _ in range(count)]
    readers: list[SourceReader] = []
    for _ in range(60 * count):
        if len(readers) < 3 * count or rng.random() < 0.1:
            number = int(rng.integers(count))
            start = positions[number][int(rng.integers(len(positions[number])))]
            readers = [*readers[-3 * count :], SourceReader(config, number, start)]
        reader = readers[int(rng.integers(len(readers)))]
        for side, topic in enumerate(("predictions", "feedback")):
            page = sources.read(topic, reader.partition, reader.next_offset(side))[: int(rng.integers(1, 40))]
            reader.give(side, source_records_of([Raw(taken.offset, taken.append_ts, taken.value) for taken in page]))
        reader.advance((True, True))
        if not reader.filling and reader.moved:
            ledger += [*reader.flush(), *reader.replica_facts()]
            positions[reader.partition].append(reader.position())
    return ledger


def folded(ledger: list[Record], config: Config) -> tuple[Fold, list[Taken], int]:
    """Return the fold of a ledger, the records of it and of the journal, and how many corners there were at once."""
    fold, journal, corners = Fold(config), [], 1
    for record in ledger:
        journal += [decision_bytes(decision) for decision in step(fold, record)]
        corners = max([corners, *(len(coverage.corners) for coverage in fold.coverage.values())])
    records = [Taken("ledger", 0, i, i, None, entry_of(record).value) for i, record in enumerate(ledger)]
    return fold, records + [Taken("decisions", 0, i, i, b"m", line) for i, line in enumerate(journal)], corners


def test_ledger_and_journal_are_read_once(played: Played) -> None:
    topics = Memory(played.taken)
    assert audit_topics(topics, played.trust).first_difference is None
    once = [place for place in topics.given if place[0] in ("ledger", "decisions")]
    assert len(once) > 50
    assert {topics.given[place] for place in once} == {1}


def test_batches_of_topics_that_were_made_again_are_passed_over_and_the_others_are_joined() -> None:
    config, before, after = parse(CONFIG), partitioned(1, 1), partitioned(2, 1)
    ledger = read_twice(Memory(before), config, 1, 1)
    old = sum(isinstance(record, Batch) for record in ledger)
    ledger += [Begun(-1, 0, 1), *read_twice(Memory(after), config, 1, 2, incarnation=1)[1:]]
    fold, records, _ = folded(ledger, config)
    assert fold.rejected["FOREIGN_BATCH"] == 0
    result = audit_topics(Memory(after + records), None)
    assert result.first_difference is None
    assert result.remarks == [f"{old} batches of an earlier incarnation of their source topics"]
    # What stands in the topics of now is compared all the same.
    lost = [taken for taken in after if taken.topic == "predictions"][1]
    assert audit_topics(Memory([taken for taken in after + records if taken is not lost]), None).first_difference


@pytest.mark.parametrize("seed", range(4))
def test_ledger_of_readers_that_overlap_is_clean_and_a_lost_record_is_found(seed: int) -> None:
    count = 1 + seed % 3
    config, sources = parse(CONFIG), partitioned(seed, count)
    ledger = read_twice(Memory(sources), config, count, seed)
    fold, records, corners = folded(ledger, config)
    assert corners > 1
    records += sources
    result = audit_topics(Memory(records), None)
    assert result.first_difference is None
    assert result.remarks == []
    number = max(fold.coverage, key=lambda number: fold.coverage[number].predictions)
    # Without the first record the sources would be a log that was cut off at the front, which is no lie.
    lost = [taken for taken in sources if (taken.topic, taken.partition) == ("predictions", number)][1]
    assert audit_topics(Memory([taken for taken in records if taken is not lost]), None).first_difference is not None


@pytest.mark.parametrize("wider", [(2, 2), (0, 3), (10_000, 10_000)])
def test_batch_that_claims_more_than_was_read_is_found(wider: tuple[int, int]) -> None:
    """Whoever may write to the ledger can keep outcomes from being counted, but not from being missed."""
    config, sources = parse(CONFIG), partitioned(5, 1)
    ledger = read_twice(Memory(sources), config, 1, 5)
    place = next(i for i, record in enumerate(ledger) if isinstance(record, Batch) and record.end[0] > 100)
    batch = ledger[place]
    assert isinstance(batch, Batch)
    ledger[place] = msgspec.structs.replace(batch, end=(batch.end[0] + wider[0], batch.end[1] + wider[1]))
    fold, journal = Fold(config), list[bytes]()
    for record in ledger:
        journal += [decision_bytes(decision) for decision in step(fold, record)]
    records = sources + [Taken("ledger", 0, i, i, None, entry_of(record).value) for i, record in enumerate(ledger)]
    records += [Taken("decisions", 0, i, i, b"m", line) for i, line in enumerate(journal)]
    difference = audit_topics(Memory(records), None).first_difference
    assert difference is not None
    assert f"ledger record {place}" in difference.sentence()
