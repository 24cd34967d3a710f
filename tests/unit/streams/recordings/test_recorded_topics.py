"""What is taken from a live log, whatever the rounds and restarts were, replays to the journal's bytes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from actions.journal import decision_bytes
from console.logs import open_source
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.topics import EmbeddedTopics
from streams.recordings.lines import KIND_OF, RANK, read_line
from streams.recordings.replay import Replay
from streams.recordings.writing import Span, Written, record_topics
from tests.sites import Site
from tests.worlds.busy import CONFIG, busy_lines
from unship.errors import RecordingError
from unship.log.embedded.log import Message


@pytest.fixture(scope="module")
def decay() -> tuple[list[bytes], Config]:
    return busy_lines(1, 2_000), parse(CONFIG)


def played(site: Site, seed: int) -> None:
    """Let a monitor read what is sent in rounds of random size; it dies at random and starts again."""
    rng = np.random.default_rng(seed)
    live = site.monitor()
    while site.sent < len(site.lines):
        site.send(int(rng.integers(1, 500)))
        if rng.random() < 0.8:
            live.step()
        if rng.random() < 0.15:
            live.save_snapshot()
        if rng.random() < 0.2:
            live = site.monitor()
    live = site.monitor()
    live.step()


def recorded(site: Site, span: Span | None = None) -> tuple[list[bytes], Written]:
    stream = io.BytesIO()
    written = record_topics(EmbeddedTopics(site.log), stream, *(() if span is None else (span,)))
    lines = stream.getvalue().splitlines(keepends=True)
    assert sum(written.lines.values()) == len(lines)
    assert written.bytes == len(stream.getvalue())
    return lines, written


@pytest.mark.parametrize("seed", range(3))
def test_recording_replays_to_the_journal_and_holds_every_record(
    decay: tuple[list[bytes], Config], tmp_path: Path, seed: int
) -> None:
    site = Site(tmp_path / "log", *decay)
    played(site, seed)
    lines, written = recorded(site)
    assert written.limits == []
    taken = [read_line(line) for line in lines]
    for topic in KIND_OF:
        entries = site.log.read(topic, 0, limit=100_000, max_bytes=1 << 30)
        found = [(t.offset, t.append_ts, t.key, t.value, t.headers) for t in taken if t.topic == topic]
        assert found == [(e.offset, e.append_ts, e.key, e.value, e.headers) for e in entries], topic
    order = [(t.append_ts, RANK[t.topic], t.offset) for t in taken[1:]]
    assert order == sorted(order)
    decisions = [decision_bytes(d) for d in Replay(parse("")).decisions(io.BytesIO(b"".join(lines)))]
    assert decisions == site.journal()
    assert b'"rollback"' in b"".join(decisions)
    with open_source(f"embedded:{tmp_path / 'log'}") as stream:
        assert stream.readlines() == lines


def test_span_holds_the_whole_ledger_and_says_what_cannot_be_compared(
    decay: tuple[list[bytes], Config], tmp_path: Path
) -> None:
    site = Site(tmp_path / "log", *decay)
    played(site, 1)
    everything = [read_line(line) for line in recorded(site)[0]]
    since, until = (everything[len(everything) * part // 4].append_ts for part in (1, 3))
    lines, written = recorded(site, Span(since, until))
    taken = [read_line(line) for line in lines]
    expected = [
        t for t in everything if t.append_ts <= until and (t.topic in ("ledger", "decisions") or t.append_ts >= since)
    ]
    assert taken == expected
    assert len(taken) < len(everything)
    assert [limit.split()[0] for limit in written.limits] == ["predictions[0]", "feedback[0]"]


def test_ledger_that_was_cut_off_at_the_front_is_said(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse(""))
    site.clock.now = 1_000
    site.log.append("ledger", [Message(b"{}"), Message(b"{}")])
    site.log.trim("ledger", 1)
    assert "nothing can be audited" in recorded(site)[1].limits[0]


def test_rejected_record_is_kept_with_all_its_bytes(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse(""))
    site.clock.now = 1_000
    site.log.append("predictions", [Message(b"\xff{", b"k", (("h", b"v"),))])
    (line,) = recorded(site)[0]
    assert json.loads(line)["type"] == "raw"
    assert (read_line(line).value, read_line(line).key, read_line(line).headers) == (b"\xff{", b"k", (("h", b"v"),))


def test_log_that_is_not_there_is_an_error_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is no log"), open_source(f"embedded:{tmp_path / 'none'}"):
        pass
    assert list(tmp_path.iterdir()) == []
