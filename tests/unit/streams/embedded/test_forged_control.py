"""A stranger who may write `control` and has no key changes nothing that the monitor does."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.keys import SIGNER, TRUST, signed
from unship.commands import Command, encode_command
from unship.events import TS_MS_MAX, Deployment
from unship.log.embedded.log import EmbeddedLog, Message
from unship.replica.fence import FenceState, boot, judge

NOW = 1_700_000_000_000


def forged(model: str, epoch: tuple[int, int, int], issued_ts: int) -> Command:
    return Command(
        model=model, epoch=epoch, serve="x", quarantine=(), action="deploy", issued_ts=issued_ts,
        not_after_ts=TS_MS_MAX, audience="prod",
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [forged("other", (0, 0, 0), TS_MS_MAX - 1), forged("m", (9, 9, 9), NOW)],
    ids=["far-future-of-another-model", "higher-epoch-of-the-model"],
)
def test_forged_record_neither_moves_the_clock_nor_ends_the_commands(
    command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EmbeddedLog(tmp_path, now_ms=lambda: NOW)
    log.append("control", [Message(encode_command(command), command.model.encode())])
    live = EmbeddedMonitor(log, parse("models: {m: {policy: {mode: act}}}"), lambda: NOW, SIGNER)
    event = Deployment(model="m", version="v1", status="live", ts=NOW)
    log.append("deployments", [signed(event, NOW)])
    live.step()
    (published,) = live.publish()
    assert (published.serve, published.issued_ts) == ("v1", NOW)
    record = log.latest("control")[b"m"]
    replica = boot(FenceState(model="m", audience="prod"), "v0")
    assert judge(replica, record.value, record.headers, TRUST, NOW)[1].kind == "ACCEPT"
    assert live.conflicts() == []
    assert live.status().rejected == {"FORGED_CONTROL": 1}
    assert caplog.text.count("FORGED_CONTROL") == 1
