"""What a replay records can be audited, however often the replay was stopped."""

from __future__ import annotations

import io

import pytest

from streams.audit.ledger_audit import audit_topics
from streams.config.parse import parse
from streams.recordings.recorded_topics import RecordedTopics
from streams.recordings.replay import Recorder, Replay
from tests.worlds.busy import CONFIG, busy_lines


@pytest.mark.parametrize("stop", [500, 1_200])
def test_recordings_of_a_stopped_and_a_resumed_replay_are_one_recording(stop: int) -> None:
    source, written, snapshot = b"".join(line + b"\n" for line in busy_lines(1)), io.BytesIO(), None
    decided = 0
    for stop_after in (stop, None):
        replay = Replay(parse(CONFIG), snapshot, Recorder(written))
        decided += len(list(replay.decisions(io.BytesIO(source), stop_after=stop_after)))
        snapshot = replay.save()
    topics = RecordedTopics(written)
    result = audit_topics(topics, None, topics.damage)
    assert (result.first_difference, result.reproduced) == (None, decided)
