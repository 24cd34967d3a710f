"""What waits while the log is away takes bounded memory of the service, whatever the events hold."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import HANG_S, until
from unship import Deployment, Feedback, Fleet, Prediction
from unship.codec import LIMITS, encode_line
from unship.emitter import QUEUE_BYTES
from unship.sending.weights import weighed

CLASSES = {f"class-{number:04d}": 0.001 for number in range(1_000)}


@pytest.fixture
def away(tmp_path: Path) -> str:
    """Give the address of a log that cannot be opened."""
    (tmp_path / "log").write_text("a file where the folder should be")
    return f"embedded:{tmp_path / 'log'}"


def grown(work: Any) -> int:
    """Return the bytes that are held after some work and were not before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_events_with_a_thousand_scores_wait_within_the_limit_in_bytes(away):
    fleet = Fleet("fraud", "v1", log=away, trust=None).start()

    def answer() -> None:
        for _ in range(4_000):
            fleet.predicted("c", scores=CLASSES)

    assert grown(answer) < QUEUE_BYTES
    stats = fleet.stats
    assert stats.dropped["QUEUE_FULL"] >= 3_000
    assert stats.waiting > 100
    fleet.close(0.0)
    assert sum(fleet.stats.dropped.values()) == 4_000


@pytest.mark.parametrize(
    "given",
    [
        {"output": "x" * 1_000_000},
        {"output": ["x" * 70_000]},
        {"output": [[1] * 100] * 1_000},
        {"output": 1, "scores": {"x" * 70_000: 0.5}},
        {"output": 1, "slices": {"country": "x" * 70_000}},
        {"output": 1, "id": "x" * 70_000},
        {"output": 1, "target": "x" * 70_000},
    ],
)
def test_event_that_no_log_takes_is_refused_before_it_waits(away, given):
    fleet = Fleet("fraud", "v1", log=away, trust=None)
    fleet.predicted(**given)
    assert (fleet.stats.waiting, fleet.stats.dropped) == (0, {"TOO_LARGE": 1})
    assert str(LIMITS.max_bytes) in fleet.stats.detail


def test_truth_and_model_card_that_no_log_takes_are_refused_too(away):
    feedback = Feedback(away, wait_s=0.0)
    feedback.truth("p-1", "x" * 1_000_000)
    assert feedback.stats.dropped == {"TOO_LARGE": 1}
    feedback.close(0.0)
    fleet = Fleet("fraud", "v1", log=away, trust=None)
    fleet.deployed(card={"text": "x" * 1_000_000})
    assert (fleet.stats.waiting, fleet.stats.dropped) == (0, {"TOO_LARGE": 1})


def test_value_that_is_no_event_of_any_size_is_bounded_too(away):
    fleet = Fleet("fraud", "v1", log=away, trust=None, queue_bytes=1_000_000)
    for _ in range(100):
        fleet.predicted(10**100_000)
        fleet.predicted(b"x" * 100_000)
    assert fleet.stats.waiting < 50
    assert fleet.stats.dropped["QUEUE_FULL"] > 150


def test_room_is_given_back_when_events_were_written_and_when_they_were_dropped(unship_embedded):
    fleet = Fleet("fraud", "v1", log=unship_embedded.log, trust=None, queue_bytes=300_000)
    with fleet:
        for _ in range(20):
            fleet.predicted("c", scores=CLASSES)
            assert fleet.flush(HANG_S)
        assert (fleet.stats.sent, fleet.stats.dropped) == (20, {})
        until(lambda: fleet._emitter._room._held == 0)
    assert len(unship_embedded.events("predictions")) == 20


def test_label_source_waits_for_room_in_bytes_and_loses_none(unship_embedded):
    truth = ["x" * 1_000] * 20
    with Feedback(unship_embedded.log, queue_bytes=100_000) as feedback:
        for number in range(100):
            feedback.truth(f"p-{number}", truth)
        assert feedback.flush(HANG_S)
        assert feedback.stats.dropped == {}
    assert len(unship_embedded.events("feedback")) == 100


def test_queue_that_was_made_longer_has_room_for_as_many_common_events(away):
    fleet = Fleet("fraud", "v1", log=away, trust=None, queue=100_000)
    for _ in range(100_000):
        fleet.predicted(1, slices={"country": "DE"}, scores={"a": 0.5})
    assert (fleet.stats.waiting, fleet.stats.dropped) == (100_000, {})


@pytest.mark.parametrize(
    "event",
    [
        Prediction(id="p", model="m", version="v", output=["a", "b"], scores=CLASSES, ts=0),
        Prediction(id="p", model="m", version="v", output=1, slices={str(n): "ä" * 100 for n in range(32)}, ts=0),
        Prediction(id="p", model="m", version="v", output="x" * 1_000, ts=0),
        Deployment(model="m", version="v", status="live", card={"a": [{"b": [0, "text", None, True, 0.5]}]}),
    ],
)
def test_event_that_a_log_takes_is_never_weighed_as_too_large(event):
    weight = weighed(event)
    assert weight is not None
    assert weight.wire <= len(encode_line(event))
    assert not weight.too_large
