"""Recordings that unpack to far more than they are: memory is bounded by bytes, and the whole of it by a limit."""

import gzip
import io
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from streams.audit.decisions_audit import audit_decisions
from streams.config.parse import parse
from streams.recordings.file_formats import open_recording
from streams.recordings.opening import has_ledger, open_seekable
from streams.recordings.recorded_topics import RecordedTopics
from streams.recordings.replay import Replay
from unship.errors import RecordingError

MIB = 1 << 20
LINE = b'{"type":"prediction","id":"' + b" " * MIB + b'"}\n'


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return a file of half a megabyte that holds 160 MiB in lines of a megabyte."""
    with gzip.open(tmp_path / "r.ndjson.gz", "wb", compresslevel=6) as file:
        for _ in range(160):
            file.write(LINE)
    assert (tmp_path / "r.ndjson.gz").stat().st_size < MIB
    return tmp_path / "r.ndjson.gz"


def replayed(path: Path) -> None:
    with open_recording(str(path)) as stream:
        list(Replay(parse("")).decisions(stream))


def audited(path: Path) -> None:
    with open_seekable(str(path)) as stream:
        assert not has_ledger(stream)
        audit_decisions(stream, (), parse(""))


def test_replay_and_audit_hold_a_few_megabytes_of_lines_at_once(packed: Path) -> None:
    for read in (replayed, audited):
        tracemalloc.start()
        read(packed)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 96 * MIB, (read, peak)


def read_whole(opened: AbstractContextManager[BinaryIO]) -> None:
    with opened as stream:
        while stream.readline():
            pass


@pytest.mark.parametrize("opened", [open_recording, open_seekable])
def test_recording_that_unpacks_to_more_than_the_limit_is_refused(
    packed: Path, opened: Callable[[str, int], AbstractContextManager[BinaryIO]]
) -> None:
    with pytest.raises(RecordingError, match=r"holds more than 16777216 bytes .*limits\.recording"):
        read_whole(opened(str(packed), 16 * MIB))


def test_recording_that_unpacks_to_the_limit_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "r.gz").write_bytes(gzip.compress(b"a\n" * 500))
    with open_recording(str(tmp_path / "r.gz"), 1_000) as stream:
        assert stream.read() == b"a\n" * 500


def test_pages_of_recorded_topics_are_bounded_by_bytes() -> None:
    line = b'{"type":"raw","at":["predictions",0,%d,1000],"raw":{"value":"' + b"AAAA" * (MIB // 4) + b'"}}\n'
    topics = RecordedTopics(io.BytesIO(b"".join(line % offset for offset in range(40))))
    assert topics.damage is None
    assert 8 <= len(topics.read("predictions", 0, 0)) < 12
