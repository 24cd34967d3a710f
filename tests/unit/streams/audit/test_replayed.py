"""The audit of a recording that a replay wrote finds every change of its sources, its ledger and its decisions."""

from __future__ import annotations

import io
from collections.abc import Callable

import msgspec
import pytest

from streams.audit.replayed import audit_replayed, is_replayed
from streams.audit.result import AuditResult
from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Batch, Deployed, Record
from streams.pipeline import Step, configuration_of
from streams.recordings.lines import line_of, read_line
from streams.recordings.replay import Recorder, Replay, written_by
from tests.worlds.busy import CONFIG, busy_lines, placed

UNTIL = 1_700_000_100_000
ADDED = 1_700_000_011_000


def recorded(source: list[bytes], until: int | None = None) -> list[bytes]:
    written = io.BytesIO()
    replay = Replay(parse(CONFIG), recorder=Recorder(written))
    assert list(replay.decisions(io.BytesIO(b"".join(line + b"\n" for line in source))))
    if until is not None:
        list(replay.advance(until))
    return written.getvalue().splitlines()


def audited(lines: list[bytes]) -> AuditResult:
    stream = io.BytesIO(b"".join(line + b"\n" for line in lines))
    assert is_replayed(stream)
    return audit_replayed(stream)


def is_ledger(line: bytes) -> bool:
    return b',"at":["ledger"' in line


def refolded(lines: list[bytes], change: Callable[[Record], Record]) -> list[bytes]:
    """Return a recording with changed ledger records, and the decisions that follow from these."""
    fold, found, decided = None, list[bytes](), 0
    for line in lines:
        if is_ledger(line):
            entry = entry_of(change(read_entry(read_line(line).value).record))
            fold = fold or Fold(configuration_of(entry.record))
            step = Step(fold.offset, entry, fold.step(entry))
            found += [line_of(taken) for taken, _ in written_by(step, fold.clock, decided)]
            decided += len(step.decisions)
        elif b',"at":["decisions"' not in line:
            found.append(line)
    return found


def later(kind: type[Batch] | type[Deployed]) -> Callable[[Record], Record]:
    return lambda record: (
        msgspec.structs.replace(record, clock=record.clock + 3_600_000) if isinstance(record, kind) else record
    )


@pytest.mark.parametrize("until", [None, UNTIL])
def test_recording_of_a_replay_has_no_difference(until: int | None) -> None:
    lines = recorded(busy_lines(1), until)
    result = audited(lines)
    assert (result.first_difference, result.remarks) == (None, [])
    assert result.ledger_records == sum(map(is_ledger, lines))
    assert result.decisions == result.reproduced == sum(b',"at":["decisions"' in line for line in lines)
    assert refolded(lines, lambda record: record) == lines


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [line for line in lines if line not in [line for line in lines if is_ledger(line)][-3:]],
        lambda lines: [line for line in lines if line != [line for line in lines if is_ledger(line)][4]],
        lambda lines: refolded(lines, later(Batch)),
        lambda lines: refolded(lines, later(Deployed)),
        lambda lines: [
            *lines,
            b'{"type":"prediction","id":"x","model":"m","version":"v1","output":1,"ts":%d}' % ADDED,
        ],
        lambda lines: [*lines, b'{"type":"deployment","model":"m","version":"v7","status":"live","ts":%d}' % ADDED],
        lambda lines: [*lines, [line for line in lines if is_ledger(line)][-1]],
        lambda lines: [line for line in lines if b',"at":["decisions"' not in line],
    ],
    ids=[
        "last ledger records removed",
        "ledger record removed",
        "batches later",
        "deployments later",
        "prediction added",
        "deployment added",
        "ledger record twice",
        "no decisions",
    ],
)
def test_changed_recording_of_a_replay_has_a_difference(change: Callable[[list[bytes]], list[bytes]]) -> None:
    assert audited(change(recorded(busy_lines(1), UNTIL))).first_difference is not None


def test_changed_predictions_of_several_partitions_are_found_in_the_first_batch() -> None:
    lines = recorded(placed(busy_lines(1), 2))
    assert audited(lines).first_difference is None
    which = [i for i, line in enumerate(lines) if b'"output": 1' in line][:3]
    for i in which:
        lines[i] = lines[i].replace(b'"output": 1', b'"output": 0')
    found = audited(lines).first_difference
    assert found is not None
    assert "predictions" in found.what


def test_recording_of_a_stopped_replay_says_what_was_not_checked() -> None:
    source, written = b"".join(line + b"\n" for line in busy_lines(1)), io.BytesIO()
    replay = Replay(parse(CONFIG), recorder=Recorder(written))
    decided = len(list(replay.decisions(io.BytesIO(source), stop_after=1_200)))
    result = audit_replayed(written)
    assert (result.first_difference, result.reproduced) == (None, decided)
    assert [remark[:21] for remark in result.remarks] == ["the last source lines"]
