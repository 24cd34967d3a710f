"""The audit of what was taken from a live log: clean whatever the rounds were, and nothing that mattered can be changed."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streams.audit import AuditResult
from streams.config import parse
from streams.live import Signer
from streams.live_audit import audit_topics
from streams.recorded import EmbeddedTopics, RecordedTopics, Span, record_log
from streams.recording import Taken, line_of, read_line
from tests.unit.streams.test_live import Site
from tests.worlds.busy import CONFIG, busy_lines
from unship.embedded import EmbeddedLog, Message
from unship.errors import RecordingError
from unship.keys import load_private_key, new_keys
from unship.signing import COMMAND_TYPE, OPERATOR_TYPE, Trust, sign


@dataclass
class Played:
    """A log that was lived through, its recording, and who may sign."""

    log: EmbeddedLog
    taken: list[Taken]
    trust: Trust


def play(folder: Path, seed: int) -> Played:
    """Let a monitor live through a rollback, in rounds of random size with noise between, and die now and then."""
    trust = new_keys(folder / "keys", "prod")
    controller, operator = (load_private_key(folder / "keys" / f"{role}.key") for role in ("controller", "operator"))
    signer = Signer("prod", lambda value: sign(value, controller, COMMAND_TYPE), trust)
    site, rng = Site(folder / "log", busy_lines(seed), parse(CONFIG)), np.random.default_rng(seed)
    live, held = site.monitor(signer), False
    while site.sent < len(site.lines):
        site.send(int(rng.integers(1, 400)))
        if rng.random() < 0.3:
            site.log.append("predictions", [Message(b"{", b"x")])
            site.log.append("feedback", [Message(None, b"x"), Message(b'{"id":"p1",  "truth":1}', b"p1")])
            site.log.append("operator", [Message(b"{}", b"m")])
        if not held and site.sent > 100:
            act = json.dumps({"act": "resume", "model": "m", "reason": "drill", "by": "ann"}).encode()
            site.log.append("operator", [Message(act, b"m", tuple(sign(act, operator, OPERATOR_TYPE)))])
            held = True
        if rng.random() < 0.8:
            live.step()
            live.publish()
        if rng.random() < 0.15:
            live.save_snapshot()
        if rng.random() < 0.2:
            live = site.monitor(signer)
    live = site.monitor(signer)
    live.step()
    live.publish()
    return Played(site.log, taken_of(site.log), trust)


def taken_of(log: EmbeddedLog, span: Span | None = None) -> list[Taken]:
    stream = io.BytesIO()
    record_log(log, stream, *(() if span is None else (span,)))
    return [read_line(line) for line in stream.getvalue().splitlines()]


def audited(lines: list[bytes], trust: Trust | None) -> AuditResult:
    topics = RecordedTopics(io.BytesIO(b"".join(line + b"\n" for line in lines)))
    return audit_topics(topics, trust, topics.damage)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return play(tmp_path_factory.mktemp("played"), 1)


@pytest.mark.parametrize("seed", range(2, 6))
def test_recording_of_random_rounds_and_restarts_is_clean(tmp_path: Path, seed: int) -> None:
    lived = play(tmp_path, seed)
    result = audited([line_of(taken) for taken in lived.taken], lived.trust)
    assert result.first_difference is None
    assert result.remarks == []
    assert result.reproduced == result.decisions == len(result.ids) >= 3
    assert result.ledger_records == lived.log.end("ledger")
    assert audit_topics(EmbeddedTopics(lived.log), lived.trust) == result


def test_audit_without_keys_says_that_signatures_were_not_checked(played: Played) -> None:
    result = audited([line_of(taken) for taken in played.taken], None)
    assert result.first_difference is None
    (remark,) = result.remarks
    assert f"{played.log.end('control')} commands and 1 operators' acts" in remark
