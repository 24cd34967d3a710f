"""Whatever was appended to the topics that others write, the monitor goes on: then, and after a restart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.hostile.records import FLOODS, hostile_records
from tests.keys import SIGNER
from unship.codec import encode_line
from unship.events import Feedback, Prediction
from unship.log.embedded.file import EmbeddedLogError
from unship.log.embedded.log import EmbeddedLog, Message
from unship.topics import EVENT_TOPICS

CONFIG = parse(
    """
    models:
      fraud: {policy: {mode: act}, slices: {by: [m, fraud]}}
      honest: {}
      m: {labels: {mature_after: 10s, horizon: 60s, early: 5s}, losses: [zero_one, brier]}
    """
)
NOW = 1_700_000_000_000


class Watched:
    """A monitor over one log, restarted at will, and an honest model whose outcomes it has to count."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.log = EmbeddedLog(folder, now_ms=lambda: self.now, fsync=False)
        self.monitor = self.restarted()
        self.numbers = count()

    def restarted(self) -> EmbeddedMonitor:
        return EmbeddedMonitor(self.log, CONFIG, lambda: self.now, SIGNER)

    def round(self) -> None:
        self.now += 1_000
        self.monitor.step()
        while any(self.monitor.positions[topic] < self.log.end(topic) for topic in EVENT_TOPICS):
            self.monitor.step()
        self.monitor.publish()
        self.monitor.conflicts()

    def counted(self) -> int:
        """Let an honest prediction be answered; return how many outcomes of the honest version are counted."""
        name = f"honest-{next(self.numbers)}"
        prediction = Prediction(id=name, model="honest", version="v1", output=1)
        self.log.append("predictions", [Message(encode_line(prediction), name.encode())])
        self.log.append("feedback", [Message(encode_line(Feedback(id=name, truth=1)), name.encode())])
        self.round()
        return self.monitor.status().models["honest"].outcomes["v1"]


@settings(max_examples=60)
@given(st.lists(st.lists(hostile_records(), min_size=1, max_size=12), min_size=1, max_size=4))
def test_honest_outcome_is_counted_after_any_records_and_after_a_restart(
    rounds: list[list[tuple[str, Message]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        watched = Watched(Path(folder) / "log")
        expected = 0
        for records in rounds:
            for topic, record in records:
                # The log itself refuses a record without a key where a topic is compacted.
                with suppress(EmbeddedLogError):
                    watched.log.append(topic, [record])
            watched.round()
            expected += 1
            assert watched.counted() == expected
            watched.monitor.save_snapshot()
            watched.monitor = watched.restarted()
            expected += 1
            assert watched.counted() == expected
        watched.log.close()


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
@pytest.mark.parametrize("model", ["fraud", "m"])
def test_honest_outcome_is_counted_after_a_flood_and_after_a_restart(
    flood: Callable[[str, int, int], list[tuple[str, Message]]], model: str, tmp_path: Path
) -> None:
    watched = Watched(tmp_path / "log")
    for topic, record in flood(model, 4_000, 0):
        watched.log.append(topic, [record])
    for expected in (1, 2, 3):
        assert watched.counted() == expected
        watched.monitor.save_snapshot()
        watched.monitor = watched.restarted()
    assert ledger_bytes_max(watched.log) <= 512 * 1_024
    watched.log.close()


def ledger_bytes_max(log: EmbeddedLog) -> int:
    return max(len(record.value or b"") for record in log.read("ledger", 0, limit=100_000, max_bytes=1 << 30))
