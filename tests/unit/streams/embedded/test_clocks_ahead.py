"""A clock that is far ahead, of another process or of the machine for a moment, does not end the judging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.config.parse import parse
from streams.embedded.lasting_clock import LastingClock
from streams.embedded.monitor import EmbeddedMonitor
from unship.errors import UnshipError
from unship.log.embedded.link import EmbeddedLink
from unship.log.embedded.log import ClockAhead, EmbeddedLog, Message
from unship.log.link import wall_ms

YEAR_MS = 365 * 86_400_000
START_MS = 1_767_600_000_000


class Place:
    """A log with a monitor by one clock, into which processes with other clocks append."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = START_MS
        self.log = EmbeddedLog(folder, now_ms=lambda: self.now, fsync=False)
        self.live = self.monitor()
        self.sent = 0

    def monitor(self) -> EmbeddedMonitor:
        config = parse("models: {fraud: {labels: {mature_after: 1m}}}")
        return EmbeddedMonitor(self.log, config, lambda: self.now)

    def append_ahead(self, topic: str, by_ms: int = YEAR_MS) -> None:
        with EmbeddedLog(self.folder, now_ms=lambda: self.now + by_ms, fsync=False) as other:
            other.append(topic, [_prediction("ahead") if topic == "predictions" else Message(b"{}", b"m")])

    def requests(self, rounds: int) -> None:
        for _ in range(rounds):
            names = [f"p{self.sent + number}" for number in range(20)]
            self.log.append("predictions", [_prediction(name) for name in names])
            self.now += 5_000
            self.log.append("feedback", [Message(b'{"id":"%b","truth":1}' % name.encode(), b"k") for name in names])
            self.live.step()
            self.now += 5_000
            self.sent += 20

    def judged(self) -> int:
        live = self.live.pipeline.fold.models["fraud"].state.live
        return 0 if live is None else live.health.outcomes


def _prediction(name: str) -> Message:
    return Message(json.dumps({"id": name, "model": "fraud", "version": "v1", "output": 1}).encode(), b"k")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "log")
    event = {"model": "fraud", "version": "v1", "status": "live"}
    place.log.append("deployments", [Message(json.dumps(event).encode(), b"fraud")])
    place.live.step()
    return place


@pytest.mark.parametrize("topic", ["predictions", "feedback", "acks", "operator", "deployments"])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "at the start"])
def test_one_append_by_a_clock_that_is_a_year_ahead_does_not_end_the_judging(
    place: Place, topic: str, restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    place.requests(20)
    place.append_ahead(topic)
    if restarted:
        # Honest appends that follow have its time too, until a monitor runs.
        place.log.append(topic, [Message(b"{}", b"m")])
        place.live = place.monitor()
    place.requests(40)
    assert place.judged() > 0.8 * place.sent
    assert place.live.status().rejected["CLOCK_AHEAD"] >= 1
    assert place.live.status().clock <= place.now
    assert "CLOCK_AHEAD" in caplog.text
    letters = [json.loads(record.value or b"") for record in place.log.read("rejected", 0)]
    assert [letter["topic"] for letter in letters if letter["code"] == "CLOCK_AHEAD"] == [topic]
    # What was read is what a restart reads, and append times rise.
    assert place.monitor().positions == place.live.positions
    times = [record.append_ts for record in place.log.read(topic, 0)]
    assert times == sorted(times)
    assert max(times) <= place.now


def test_clock_that_is_a_little_ahead_is_taken_as_it_is(place: Place) -> None:
    place.append_ahead("predictions", 300_000)
    place.live.step()
    assert place.log.read("predictions", 0)[0].append_ts == place.now + 300_000
    assert "CLOCK_AHEAD" not in place.live.status().rejected


def test_clock_of_the_monitor_that_was_set_back_leaves_what_was_read(place: Place) -> None:
    place.requests(3)
    before = [record.append_ts for record in place.log.read("predictions", 0)]
    place.now -= 3_600_000
    place.requests(2)
    assert [record.append_ts for record in place.log.read("predictions", 0)][: len(before)] == before
    assert "CLOCK_AHEAD" not in place.live.status().rejected


# Refused by the log


def test_append_by_a_clock_far_ahead_of_a_running_monitor_is_refused_and_kept_by_the_emitter(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path) as log:
        log.tick(wall_ms())
        ahead = EmbeddedLink(tmp_path, now_ms=lambda: wall_ms() + YEAR_MS)
        batches = {"predictions": [_prediction("p")]}
        for _ in range(2):
            with pytest.raises(ClockAhead, match=r"3153[56]\d\d\d s ahead of the monitor's, more than 600 s"):
                ahead.append(batches, lambda: False)
        assert len(batches["predictions"]) == 1
        assert log.end("predictions") == 0
        ahead.close()
        right = EmbeddedLink(tmp_path)
        right.append(batches, lambda: False)
        right.close()
        assert log.end("predictions") == 1
        assert issubclass(ClockAhead, UnshipError)


def test_append_is_compared_with_no_monitor_that_ended(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path) as log:
        log.tick(wall_ms())
        # As it would be after two minutes, or another start of the machine.
        for boot in (120_000, -1_000_000_000_000):
            with log._writing(synced=False) as db:
                db.execute("UPDATE writers SET token = token - ? WHERE name = 'clock since boot'", (boot,))
            with EmbeddedLog(tmp_path, now_ms=lambda: wall_ms() + YEAR_MS) as ahead:
                ahead.append("predictions", [_prediction("p")])


@pytest.mark.parametrize(("lasts_s", "follows"), [(30, False), (59, False), (61, True), (600, True)])
def test_monitor_follows_a_jump_of_its_clock_once_it_has_lasted(lasts_s: int, follows: bool) -> None:
    wall, boot = [START_MS], [1_000]
    clock = LastingClock(lambda: wall[0], lambda: boot[0])
    wall[0] += YEAR_MS
    times = []
    for _ in range(lasts_s):
        wall[0], boot[0] = wall[0] + 1_000, boot[0] + 1_000
        times.append(clock())
    expected = wall[0] if follows else START_MS + lasts_s * 1_000
    assert times[-1] == expected
    assert times == sorted(times)
    wall[0] = START_MS + lasts_s * 1_000 + 1_000
    boot[0] += 1_000
    assert clock() == wall[0]
    wall[0] -= 7_200_000
    assert clock() == wall[0]
