"""A recording of packed records gives what one of plain records gives."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest

from streams.audit.replayed import audit_replayed
from streams.config.parse import parse
from streams.embedded.topics import EmbeddedTopics, open_log
from streams.join.runs import Run
from streams.recordings.arrivals import arrivals
from streams.recordings.recorded_topics import RecordedTopics
from streams.recordings.replay import Recorder, Replay
from streams.recordings.writing import record_topics
from tests.packing import placed_lines
from tests.waiting import HANG_S
from tests.worlds.busy import CONFIG, busy_lines, untidy_lines
from unship import Feedback, Fleet


def text_of(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def decided(lines: list[bytes]) -> tuple[list[Any], dict[str, int]]:
    """Return what was decided and counted, without what names the bytes and places that it follows from.

    Outcomes of one interval are judged in an order that follows from their places, which packing changes, so the
    figures of the evidence are left out as well.
    """
    left_out = ("id", "provenance", "digests", "evidence")
    replay = Replay(parse(CONFIG))
    found = []
    for decision in replay.decisions(io.BytesIO(text_of(lines))):
        fields = msgspec.to_builtins(decision)
        found.append({name: value for name, value in fields.items() if name not in left_out})
    return found, replay.counts()


@pytest.mark.parametrize("lines", [busy_lines(1), busy_lines(2), untidy_lines(3)], ids=["busy", "other", "untidy"])
def test_replay_of_packed_records_decides_and_counts_as_that_of_plain_ones(lines: list[bytes]) -> None:
    packed, plain = placed_lines(lines, pack=True), placed_lines(lines, pack=False)
    assert len(packed) < len(plain) / 5
    found = decided(packed)
    assert found == decided(plain)
    assert found[0]
    assert found[1]


def test_replay_that_stops_between_packed_records_continues_to_the_same_bytes() -> None:
    lines = placed_lines(busy_lines(1), pack=True)
    whole = [msgspec.json.encode(it) for it in Replay(parse(CONFIG)).decisions(io.BytesIO(text_of(lines)))]
    first = Replay(parse(CONFIG))
    found = [*first.decisions(io.BytesIO(text_of(lines)), stop_after=len(lines) // 2)]
    found += Replay(parse(CONFIG), first.save()).decisions(io.BytesIO(text_of(lines)))
    assert [msgspec.json.encode(decision) for decision in found] == whole


def recorded() -> list[bytes]:
    written = io.BytesIO()
    source = text_of(placed_lines(busy_lines(1), pack=True))
    assert list(Replay(parse(CONFIG), recorder=Recorder(written)).decisions(io.BytesIO(source)))
    return written.getvalue().splitlines()


def test_audit_of_a_replay_of_packed_records_reproduces_every_decision() -> None:
    result = audit_replayed(io.BytesIO(text_of(recorded())))
    assert (result.first_difference, result.decisions) == (None, result.reproduced)
    assert result.reproduced > 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"events":[{', b'"events":[ {'),
        (b'},{"type"', b'}, {"type"'),
        (b'"truth":1', b'"truth":0'),
        (b",17000", b",16000"),
    ],
    ids=["a blank before an event", "a blank between events", "another truth", "another append time"],
)
def test_audit_finds_a_change_inside_a_packed_line(old: bytes, new: bytes) -> None:
    lines = recorded()
    place = next(i for i, line in enumerate(lines) if i > 50 and b'"packed"' in line and b'"truth":1' in line)
    head, found, tail = lines[place].rpartition(old)
    assert found
    lines[place] = head + new + tail
    assert audit_replayed(io.BytesIO(text_of(lines))).first_difference is not None


def test_topics_of_a_recording_have_its_packed_records() -> None:
    lines = placed_lines(busy_lines(1), pack=True)
    topics = RecordedTopics(io.BytesIO(text_of(lines)))
    assert topics.damage is None
    values = [taken.value for taken in topics.read("predictions", 0, 0)]
    assert any((value or b"").startswith(b"[") for value in values)
    assert topics.ends()["predictions", 0] == sum(b'"at":["predictions"' in line for line in lines)


def test_recording_of_a_log_has_each_packed_record_as_the_log_holds_it(unship_embedded) -> None:
    fleet = Fleet("m", "v1", log=unship_embedded.log, trust=None, pack=True)
    for number in range(100):
        fleet.predicted(1, id=f"p{number}")
    with fleet, Feedback(unship_embedded.log, pack=True) as feedback:
        feedback.truth("p0", 1)
        assert fleet.flush(HANG_S)
        assert feedback.flush(HANG_S)
    stream = io.BytesIO()
    with open_log(unship_embedded.log) as log:
        topics = EmbeddedTopics(log)
        written = record_topics(topics, stream)
        recording = RecordedTopics(stream)
        for topic in ("predictions", "feedback"):
            assert list(recording.read(topic, 0, 0)) == list(topics.read(topic, 0, 0))
    assert recording.damage is None
    assert (written.lines["predictions"], written.lines["feedback"]) == (2, 1)
    (run,) = arrivals(stream.getvalue().splitlines())
    assert isinstance(run, Run)
    assert [event.id for event in run.packed[0].items] == [f"p{number}" for number in range(64)]


def test_events_of_packed_lines_have_the_place_of_their_record() -> None:
    source = busy_lines(1, 200)
    found = list(arrivals(placed_lines(source, pack=True)))
    runs = [each for each in found if isinstance(each, Run)]
    packed = [block.items for run in runs for block in run.packed.values()]
    plain = sum(len(run.items) - len(run.packed) for run in runs)
    assert len(found) - len(runs) + plain + sum(map(len, packed)) == len(source)
    assert packed
    assert all(len({event.at for event in items}) == 1 and items[0].at for items in packed)
