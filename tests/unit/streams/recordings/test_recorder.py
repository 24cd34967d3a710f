"""What a replay records can be audited, however often the replay was stopped."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from streams.audit.replayed import audit_replayed
from streams.config.parse import parse
from streams.recordings.replay import Recorder, Replay
from tests.worlds.busy import CONFIG, busy_lines, placed
from unship.errors import RecordingError


@pytest.mark.parametrize("stop", [500, 1_200])
def test_recordings_of_a_stopped_and_a_resumed_replay_are_one_recording(stop: int) -> None:
    source, written, snapshot = b"".join(line + b"\n" for line in busy_lines(1)), io.BytesIO(), None
    decided = 0
    for stop_after in (stop, None):
        replay = Replay(parse(CONFIG), snapshot, Recorder(written))
        decided += len(list(replay.decisions(io.BytesIO(source), stop_after=stop_after)))
        snapshot = replay.save()
    result = audit_replayed(written)
    assert (result.first_difference, result.reproduced) == (None, decided)


def test_replay_of_a_recording_with_a_ledger_refuses_to_record_it_again() -> None:
    source, written = b"".join(line + b"\n" for line in busy_lines(1)), io.BytesIO()
    list(Replay(parse(CONFIG), recorder=Recorder(written)).decisions(io.BytesIO(source)))
    written.seek(0)
    with pytest.raises(RecordingError, match="leave --record out"):
        list(Replay(parse(CONFIG), recorder=Recorder(io.BytesIO())).decisions(written))


def with_line_of_bad_value(lines: list[bytes]) -> list[bytes]:
    return [*lines[:900], b'{"type":"raw","at":["predictions",0,3,1700000000000],"raw":{"value":"ew=="}}', *lines[900:]]


def with_a_deployment_again(lines: list[bytes]) -> list[bytes]:
    return [*lines[:900], *(line for line in lines[:900] if b'"deployment"' in line), *lines[900:]]


def with_a_command_without_place(lines: list[bytes]) -> list[bytes]:
    return [*lines[:900], b'{"type":"command","model":"m"}', *lines[900:]]


def with_an_event_at_a_place_in_the_ledger(lines: list[bytes]) -> list[bytes]:
    named = b'{"type":"feedback","id":"z","truth":1,"at":["ledger",0,3,1700000000000]}'
    return [*lines[:900], named, *lines[900:]]


def with_decisions_of_its_own(lines: list[bytes]) -> list[bytes]:
    return [*lines, b'{"type":"decision","id":"d-1","model":"m"}']


def topic_after_topic_with_rejected_lines(lines: list[bytes]) -> list[bytes]:
    predictions, others = ([line for line in lines if (b'"prediction"' in line) is kind] for kind in (True, False))
    return [*others[:1], *predictions[:300], *others[1:300], b"{}", *predictions[300:], *others[300:]]


@pytest.mark.parametrize(
    "change",
    [
        with_line_of_bad_value,
        with_a_deployment_again,
        with_a_command_without_place,
        with_an_event_at_a_place_in_the_ledger,
        with_decisions_of_its_own,
        topic_after_topic_with_rejected_lines,
    ],
)
def test_recording_of_a_replay_of_untidy_lines_has_no_difference(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    source, written = b"".join(line + b"\n" for line in change(placed(busy_lines(1)))), io.BytesIO()
    decided = list(Replay(parse(CONFIG), recorder=Recorder(written)).decisions(io.BytesIO(source)))
    result = audit_replayed(written)
    assert (result.first_difference, result.reproduced) == (None, len(decided))
