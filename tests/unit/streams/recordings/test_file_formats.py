"""What a file is shows in its first bytes; what is not read is named with the command that converts it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from console.cli import main
from streams.recordings.file_formats import open_recording
from streams.recordings.opening import open_seekable
from unship.errors import RecordingError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TS = 1_772_409_600_000
EVENTS: list[dict[str, Any]] = [
    {"type": "deployment", "model": "m", "version": "v1", "status": "live", "ts": TS},
    {"type": "prediction", "id": "a", "model": "m", "version": "v1", "output": 1, "ts": TS + 1},
    {"type": "feedback", "id": "a", "truth": 1, "ts": TS + 2},
]
LINES = "".join(json.dumps(event) + "\n" for event in EVENTS).encode()
PACKED: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd.compress}


def replay(source: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["--json", "replay", str(source)], input=stdin)


@pytest.mark.parametrize("opened", [open_recording, open_seekable])
@pytest.mark.parametrize("name", ["r.ndjson", "r.{}", "r"])
@pytest.mark.parametrize("kind", PACKED)
def test_compressed_file_is_read_under_its_name_and_under_any_other(
    tmp_path: Path, kind: str, name: str, opened: Any
) -> None:
    path = tmp_path / name.format(kind)
    # Two of them after each other are one.
    path.write_bytes(PACKED[kind](LINES) + PACKED[kind](LINES))
    with opened(str(path)) as stream:
        assert stream.read() == LINES * 2


@pytest.mark.parametrize("kind", PACKED)
def test_compressed_standard_input_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    piped = io.TextIOWrapper(io.BufferedReader(io.BytesIO(PACKED[kind](LINES))))
    monkeypatch.setattr(sys, "stdin", piped)
    with open_recording("-") as stream:
        assert stream.read() == LINES


@pytest.mark.parametrize("opened", [open_recording, open_seekable])
@pytest.mark.parametrize("kind", PACKED)
def test_compressed_file_is_unpacked_up_to_the_limit(tmp_path: Path, kind: str, opened: Any) -> None:
    path = tmp_path / f"r.{kind}"
    path.write_bytes(PACKED[kind](b"\n" * 5_000))
    with pytest.raises(RecordingError, match=r"limits\.recording"), opened(str(path), 4_999) as stream:
        stream.read()
    with opened(str(path), 5_000) as stream:
        assert len(stream.read()) == 5_000


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data + b"garbage", lambda data: b"text\n"])
@pytest.mark.parametrize("kind", PACKED)
def test_damaged_compressed_file_is_an_error_that_names_it(tmp_path: Path, kind: str, damage: Any) -> None:
    path = tmp_path / f"r.{kind}"
    path.write_bytes(damage(PACKED[kind](LINES)))
    result = replay(path)
    assert result.exit_code == 2
    assert f"r.{kind}: cannot be read" in result.stderr


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (LINES.decode().encode("utf-16"), "it is UTF-16, and a recording is UTF-8; convert it: iconv -f UTF-16 -t"),
        (LINES.decode().encode("utf-16-le"), "it is UTF-16"),
        (LINES.decode().encode("utf-16-be"), "it is UTF-16"),
        (gzip.compress(LINES.decode().encode("utf-16")), "it is UTF-16"),
        (bz2.compress(LINES), "bzip2 -dc"),
        (lzma.compress(LINES), "xz -dc"),
        (b"PAR1" + bytes(20), "a Parquet file"),
        (json.dumps(EVENTS).encode(), "it is one JSON array; write its elements as lines: jq -c '.[]' FILE"),
        (json.dumps(EVENTS, indent=2).encode(), "it is one JSON array"),
        (b"id,truth\n1,1\n", "no line of the recording is an event: line 1: BAD_JSON"),
        (b'{"id":"a","truth":1}\n', "no line of the recording is an event: line 1: UNKNOWN_TYPE"),
        (b"\n\n", "no line of the recording is an event: line 1: BAD_JSON"),
        (LINES.replace(b"772409600", b"772409").replace(b"1772409", b"1772409"), "are they seconds?"),
    ],
)
def test_file_without_an_event_is_refused_with_its_format_and_the_fix(
    tmp_path: Path, data: bytes, sentence: str
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(data)
    result = replay(path)
    assert result.exit_code == 2, result.stderr
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("data", [b"", LINES, b"[INFO] started\n" + LINES, b"{\n" + LINES])
def test_file_with_an_event_or_without_a_line_is_read(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(data)
    assert replay(path).exit_code == 0


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, end: bytes) -> None:
    path, complete = tmp_path / "bom.ndjson", tmp_path / "complete.ndjson"
    path.write_bytes(BOM_UTF8 + LINES.replace(b"\n", end))
    result = CliRunner().invoke(main, ["--json", "replay", str(path), "--record", str(complete)])
    assert json.loads(result.stderr)["rejected"] == {}
    assert b'"kind":"deployment"' in complete.read_bytes() or b'"version":"v1","status":"live"' in complete.read_bytes()
    assert CliRunner().invoke(main, ["audit", str(complete)]).exit_code == 0
    half, rest = tmp_path / "half", ["replay", str(path), "--from", str(tmp_path / "half")]
    CliRunner().invoke(main, ["replay", str(path), "--stop-after", "1", "--save", str(half)])
    assert json.loads(CliRunner().invoke(main, ["--json", *rest]).stderr)["rejected"] == {}
