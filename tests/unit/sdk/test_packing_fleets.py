"""Fleets and label sources that pack: what arrives is what plain records would hold, in fewer records."""

from __future__ import annotations

from typing import Any

from tests.waiting import HANG_S, until
from unship import Feedback, Fleet
from unship.emitter import BATCH_EVENTS
from unship.log.embedded.log import EmbeddedLog
from unship.log.packed import PACKED_EVENTS_MAX, unpack_value


def emitting(bench: Any, **settings: Any) -> Any:
    return Fleet("fraud", "v42", log=bench.log, trust=None, replica="r-1", pack=True, **settings)


def sizes(bench: Any, topic: str) -> list[int]:
    """Return how many events each record of a topic holds; 0 for a plain record."""
    found = [unpack_value(record.value) for record in bench.records(topic)]
    return [len(values) if isinstance(values, list) else 0 for values in found]


def test_events_that_wait_together_share_records_and_keep_their_order(unship_embedded):
    fleet = emitting(unship_embedded)
    ids = [f"p-{number}" for number in range(150)]
    for each in ids:
        fleet.predicted(1, id=each, slices={"country": "DE"})
    with fleet:
        assert fleet.flush(HANG_S)
    assert sizes(unship_embedded, "predictions") == [64, 64, 22]
    assert [event.id for event in unship_embedded.events("predictions")] == ids
    assert [record.key for record in unship_embedded.records("predictions")] == [b"p-0", b"p-64", b"p-128"]
    assert (fleet.stats.sent, fleet.stats.dropped, fleet.stats.waiting) == (150, {}, 0)


def test_packed_events_are_those_that_plain_records_hold(unship_embedded, tmp_path):
    then = 1_900_000_000_000
    packing, plain = f"embedded:{tmp_path / 'packing'}", unship_embedded.log
    for log, pack in ((packing, True), (plain, False)):
        fleet = Fleet("fraud", "v42", log=log, trust=None, replica="r-1", pack=pack, now_ms=lambda: then)
        for number in range(BATCH_EVENTS + 10):
            fleet.predicted(number, id=f"p-{number}", score=0.5, scores={"a": 0.25}, slices={"ä": number})
        with fleet:
            assert fleet.flush(HANG_S)
    records = [record.value for record in unship_embedded.records("predictions")]
    with EmbeddedLog(tmp_path / "packing") as log:
        packed = [unpack_value(record.value) for record in log.read("predictions", 0)]
    assert [value for values in packed if isinstance(values, list) for value in values] == records


def test_single_event_is_a_plain_record(unship_embedded):
    with emitting(unship_embedded) as fleet:
        for number in range(3):
            fleet.predicted(1, id=f"p-{number}")
            assert fleet.flush(HANG_S)
    assert sizes(unship_embedded, "predictions") == [0, 0, 0]


def test_event_is_written_without_a_flush_or_further_events(unship_embedded):
    with emitting(unship_embedded) as fleet:
        fleet.predicted(1, id="p-1")
        until(lambda: fleet.stats.sent == 1, lambda: fleet.stats)
        assert [event.id for event in unship_embedded.events("predictions")] == ["p-1"]


def test_closing_writes_what_waits_for_others(unship_embedded):
    fleet = emitting(unship_embedded).start()
    for number in range(10):
        fleet.predicted(1, id=f"p-{number}")
    fleet.close(HANG_S)
    assert [event.id for event in unship_embedded.events("predictions")] == [f"p-{number}" for number in range(10)]
    assert (fleet.stats.sent, fleet.stats.dropped) == (10, {})


def test_deployments_are_never_packed(unship_embedded):
    fleet = emitting(unship_embedded)
    for number in range(3):
        fleet.deployed(version=f"v{number}")
        fleet.predicted(1, id=f"p-{number}")
    with fleet:
        assert fleet.flush(HANG_S)
    assert sizes(unship_embedded, "deployments") == [0, 0, 0]
    assert sizes(unship_embedded, "predictions") == [3]


def test_event_too_large_to_share_is_a_plain_record_between_the_others(unship_embedded):
    fleet = emitting(unship_embedded)
    large: Any = {"output": ["x" * 1_000] * 65, "slices": {"name": "x" * 128}}
    for number in range(5):
        fleet.predicted(id=f"p-{number}", **(large if number == 2 else {"output": 1}))
    with fleet:
        assert fleet.flush(HANG_S)
    assert sizes(unship_embedded, "predictions") == [2, 0, 2]
    assert [event.id for event in unship_embedded.events("predictions")] == [f"p-{number}" for number in range(5)]


def test_what_is_dropped_is_counted_by_events(unship_embedded):
    fleet = emitting(unship_embedded, queue=100)
    for number in range(130):
        fleet.predicted(float("nan") if number in (7, 8) else 1, id=f"p-{number}")
    with fleet:
        assert fleet.flush(HANG_S)
    assert (fleet.stats.sent, fleet.stats.dropped) == (98, {"QUEUE_FULL": 30, "BAD_ARGUMENT": 2})
    assert sizes(unship_embedded, "predictions") == [64, 34]


def test_events_that_were_never_sent_are_counted_one_by_one(tmp_path):
    (tmp_path / "log").write_text("no folder")
    fleet = Fleet("fraud", "v42", log=f"embedded:{tmp_path / 'log'}", trust=None, pack=True)
    for number in range(130):
        fleet.predicted(1, id=f"p-{number}")
    fleet.start()
    fleet.close(0.0)
    assert (fleet.stats.sent, fleet.stats.dropped, fleet.stats.waiting) == (0, {"NOT_SENT": 130}, 0)


def test_label_source_packs_more_truths_than_its_queue_holds(unship_embedded):
    ids = [f"p-{number}" for number in range(1_000)]
    with Feedback(unship_embedded.log, queue=100, wait_s=HANG_S, pack=True) as feedback:
        for each in ids:
            feedback.truth(each, 1)
        assert feedback.flush(HANG_S)
        assert (feedback.stats.sent, feedback.stats.dropped) == (1_000, {})
    assert [event.id for event in unship_embedded.events("feedback")] == ids
    found = sizes(unship_embedded, "feedback")
    assert len(found) < len(ids)
    assert max(found) <= PACKED_EVENTS_MAX


def test_without_being_asked_for_nothing_is_packed(unship_embedded):
    with Fleet("fraud", "v42", log=unship_embedded.log, trust=None) as fleet, Feedback(unship_embedded.log) as feedback:
        for number in range(100):
            fleet.predicted(1, id=f"p-{number}")
            feedback.truth(f"p-{number}", 1)
        assert fleet.flush(HANG_S)
        assert feedback.flush(HANG_S)
    for topic in ("predictions", "feedback"):
        assert sizes(unship_embedded, topic) == [0] * 100
