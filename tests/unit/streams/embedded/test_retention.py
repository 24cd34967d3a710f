"""The space of an embedded log: what nobody needs leaves or is compressed, and what a restart needs stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from actions.reconcile import Signer
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded import retention
from streams.embedded.monitor import EmbeddedMonitor
from streams.embedded.snapshots import SLOTS, Head, heads, load, save
from unship.log.embedded.log import EmbeddedLimits, EmbeddedLog, EmbeddedLogError, Message
from unship.signing import Trust

SHORT = "labels: {horizon: 60s, early: 5s}"
START_MS = 1_767_600_000_000


class Traffic:
    """A log with a monitor, and requests whose labels come half a second later."""

    def __init__(self, folder: Path, config: str = "", *, limits: EmbeddedLimits | None = None) -> None:
        self.now = START_MS
        self.log = EmbeddedLog(folder, now_ms=lambda: self.now, fsync=False, limits=limits or EmbeddedLimits())
        self.config = parse(config)
        self.sent = 0
        self.rng = np.random.default_rng(7)
        self.live = self.monitor()

    def monitor(self, config: Config | None = None, signer: Signer | None = None) -> EmbeddedMonitor:
        return EmbeddedMonitor(self.log, config or self.config, lambda: self.now, signer)

    def second(self, requests: int = 1) -> None:
        names = [str(UUID(bytes=self.rng.bytes(16))) for _ in range(requests)]
        self.log.append("predictions", [_request(name, self.sent + i) for i, name in enumerate(names)])
        self.now += 500
        self.live.step()
        self.log.append("feedback", [Message(json.dumps({"id": each, "truth": 1}).encode(), b"k") for each in names])
        self.now += 500
        self.live.step()
        self.sent += requests

    def outcomes(self, live: EmbeddedMonitor | None = None) -> int:
        return sum((live or self.live).status().models["fraud"].outcomes.values())


def _request(name: str, number: int) -> Message:
    event = {"id": name, "model": "fraud", "version": "v1", "output": number % 2, "score": 0.7131, "replica": "r-1"}
    return Message(json.dumps(event | {"slices": {"country": "DE"}, "epoch": [0, 1, 0]}).encode(), name.encode())


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traffic]:
    """Traffic under a short horizon, on a log that removes what it can in small segments."""
    monkeypatch.setattr(retention, "SEGMENT_RECORDS", 500)
    traffic = Traffic(tmp_path / "log", f"defaults: {{{SHORT}}}")
    yield traffic
    traffic.log.close()


def test_request_of_each_second_with_its_label_takes_less_than_700_bytes(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "log")
    for second in range(1_500):
        traffic.second()
        if second % 30 == 29:
            traffic.live.save_snapshot()
    size = sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    assert size / traffic.sent <= 700
    # Compressed records are read like others: another monitor folds them from the beginning.
    assert len(_all(traffic.log, "ledger")) == traffic.live.pipeline.fold.offset


def test_heartbeats_and_status_do_not_fill_the_log(tmp_path: Path) -> None:
    models = ", ".join(f"m{number}: {{policy: {{mode: act, deployments: any}}}}" for number in range(20))
    traffic = Traffic(tmp_path / "log", f"models: {{{models}}}")
    live = traffic.monitor(signer=Signer("prod", lambda value: [("unship_sig", b"x")], Trust(keys=())))
    for number in range(20):
        event = {"model": f"m{number}", "version": "v1", "status": "live"}
        traffic.log.append("deployments", [Message(json.dumps(event).encode(), b"m")])
    for _ in range(600):
        traffic.now += 10_000
        live.step()
        live.publish()
    assert traffic.log.end("control") == 20 * 600
    assert len(_all(traffic.log, "control")) < 600
    assert len(traffic.log.latest("control")) == 20
    assert len(_all(traffic.log, "snapshots")) < 100


def test_requests_that_no_label_can_join_leave_the_log_and_the_others_do_not(short: Traffic) -> None:
    for second in range(300):
        short.second(20)
        if second % 10 == 0:
            short.live.save_snapshot()
    first = short.log.first("predictions")
    assert first > 1_000
    kept_since = short.log.read("predictions", first)[0].append_ts
    # A block leaves as a whole, and a segment is removed at once.
    assert kept_since <= short.now - retention.needed_ms(short.config)
    assert short.outcomes() == short.sent
    # Restarts: from the snapshot, under another configuration, and without any snapshot.
    assert short.outcomes(short.monitor()) == short.sent
    assert short.outcomes(short.monitor(parse("defaults: {labels: {horizon: 61s, early: 5s}, losses: [brier]}"))) > 0
    for slot in SLOTS:
        short.log.append("snapshots", [Message(b"damaged", slot)])
    again = short.monitor()
    assert short.outcomes(again) == short.sent
    assert again.positions == short.live.positions


@pytest.mark.parametrize("harm", [None, "another configuration", "no snapshot"])
def test_label_within_the_horizon_joins_after_a_trim_and_a_restart(short: Traffic, harm: str | None) -> None:
    for second in range(200):
        short.second(20)
        if second % 10 == 0:
            short.live.save_snapshot()
    short.log.append("predictions", [_request("late", 0)])
    short.live.step()
    short.live.save_snapshot()
    short.now += 30_000
    for topic, before in retention.removable(short.log, retention.needed_ms(short.config)).trim.items():
        short.log.trim(topic, before)
    assert short.log.first("predictions") > 0
    if harm == "no snapshot":
        for slot in SLOTS:
            short.log.append("snapshots", [Message(None, slot)])
    other = parse(f"defaults: {{{SHORT}}}\nfleet: {{max_simultaneous: 2}}") if harm == "another configuration" else None
    again = short.monitor(other)
    short.log.append("feedback", [Message(b'{"id":"late","truth":1}', b"late")])
    again.step()
    assert short.outcomes(again) == short.sent + 1


def test_what_was_removed_before_it_was_read_is_counted_and_ends_nothing(short: Traffic) -> None:
    short.second(5)
    short.log.append("predictions", [_request(f"lost-{i}", i) for i in range(10)])
    short.log.append("deployments", [Message(b"{}", b"m") for _ in range(3)])
    short.log.trim("predictions", 12)
    short.log.trim("deployments", 2)
    live = short.monitor()
    live.step()
    assert live.status().rejected["HOLE"] == 7
    assert live.positions["predictions"] == 15
    assert short.monitor().positions == live.positions


# Snapshots


def _cut(log: EmbeddedLog, slot: bytes) -> None:
    part = log.newest("snapshots", slot + b"/0")
    assert part is not None
    log.append("snapshots", [Message((part.value or b"")[:40], slot + b"/0")])


def _fewer(log: EmbeddedLog, slot: bytes) -> None:
    log.append("snapshots", [Message(None, slot + b"/0")])


def _head(value: bytes | None) -> Callable[[EmbeddedLog, bytes], None]:
    def harm(log: EmbeddedLog, slot: bytes) -> None:
        log.append("snapshots", [Message(value, slot)])

    return harm


def _other_type(log: EmbeddedLog, slot: bytes) -> None:
    head = Head(0, "", 1, 0, 0, {})
    log.append("snapshots", [Message(b"\x80", slot + b"/0")])
    save(log, log.acquire("ledger"), b"\x80", head)
    save(log, log.acquire("ledger"), b'{"positions":7}', head)


HARM: dict[str, Callable[[EmbeddedLog, bytes], None]] = {
    "cut": _cut,
    "a part is missing": _fewer,
    "head is no number": _head(b"x"),
    "head is of another type": _head(b'{"parts":"many"}'),
    "head names more parts": _head(b'{"parts":9,"digest":"","offset":1,"clock":0,"keep_ms":0,"positions":{}}'),
    "head names a thousand million parts": _head(
        b'{"parts":1000000000,"digest":"","offset":1,"clock":0,"keep_ms":0,"positions":{}}'
    ),
    "head is gone": _head(None),
    "another type with a good digest": _other_type,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=list(HARM))
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_damaged_snapshot_costs_time_and_no_start(
    tmp_path: Path, harm: Callable[[EmbeddedLog, bytes], None], both: bool, caplog: pytest.LogCaptureFixture
) -> None:
    traffic = Traffic(tmp_path / "log")
    for _ in range(3):
        traffic.second(4)
        traffic.live.save_snapshot()
    newest, older = (stored.slot for stored in heads(traffic.log))
    for slot in (newest, older) if both else (newest,):
        harm(traffic.log, slot)
    again = traffic.monitor()
    assert (traffic.outcomes(again), again.positions) == (12, traffic.live.positions)
    assert again.pipeline.fold.offset == traffic.live.pipeline.fold.offset
    assert "cannot be used" in caplog.text
    again.save_snapshot()
    assert traffic.outcomes(traffic.monitor()) == 12


def test_snapshot_larger_than_a_transaction_is_saved_and_loaded(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        fence, data = log.acquire("ledger"), np.random.default_rng(3).bytes(66 << 20)
        assert len(data) > log.limits.batch_bytes
        save(log, fence, data, Head(0, "", 5, 0, 0, {}))
        ((head, loaded),) = load(log, pytest.fail)
        assert (head.offset, loaded == data) == (5, True)


def test_snapshot_that_was_not_finished_leaves_the_one_before(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        fence = log.acquire("ledger")
        for number in range(3):
            save(log, fence, b"%d" % number * 10, Head(0, "", number, 0, 0, {}))
        older = heads(log)[-1]
        log.append("snapshots", [Message(b"3" * 10, older.slot + b"/0")], fence=fence)
        remarks: list[str] = []
        assert [data for _, data in load(log, remarks.append)] == [b"2" * 10]
        assert len(remarks) == 1


# Full


def test_round_that_a_full_log_refused_is_appended_once_there_is_room(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path / "log", limits=EmbeddedLimits(log_bytes=600_000))
    traffic.second(3)
    traffic.live.save_snapshot()
    traffic.log.append("predictions", [_request(f"more-{number}", number) for number in range(500)])
    for size in (20_000, 1_000, 10):
        with pytest.raises(EmbeddedLogError, match="the log is full"):
            fill(traffic.log, size)
    for attempt in (traffic.live.step, traffic.live.step, traffic.live.save_snapshot):
        with pytest.raises(EmbeddedLogError, match="the log is full"):
            attempt()
    traffic.log.trim("rejected", traffic.log.end("rejected"))
    traffic.live.step()
    traffic.live.step()
    ledger = _all(traffic.log, "ledger")
    assert len(ledger) == traffic.live.pipeline.fold.offset
    again = traffic.monitor()
    assert again.positions == traffic.live.positions == {topic: traffic.log.end(topic) for topic in again.positions}
    assert traffic.outcomes(again) == traffic.outcomes()


def fill(log: EmbeddedLog, size: int) -> None:
    while True:
        log.append("rejected", [Message(b"x" * size)])


def _all(log: EmbeddedLog, topic: str) -> list[int]:
    offsets: list[int] = []
    offset = log.first(topic)
    while records := log.read(topic, offset):
        offsets += [record.offset for record in records]
        offset = offsets[-1] + 1
    return offsets
