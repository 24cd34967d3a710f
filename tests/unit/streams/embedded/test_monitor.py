"""The monitor on a real embedded log, with an injected clock: what it reads, writes, publishes and refuses."""

import json
from pathlib import Path

import pytest

from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.status_records import merged
from tests.keys import CONTROLLER, DEPLOYER, OPERATOR, TRUST, signed
from tests.sites import Site
from tests.worlds.busy import CONFIG, busy_lines
from unship.codec import encode_line
from unship.commands import decode_command
from unship.log.embedded.log import Message, WriterFenced
from unship.replica.fence import Identity, acks, judge, restore
from unship.signing import OPERATOR_TYPE, Trust, sign


@pytest.fixture(scope="module")
def decay() -> tuple[list[bytes], Config]:
    return busy_lines(1, 1_000), parse(CONFIG)


def test_second_monitor_fences_the_first_off(decay: tuple[list[bytes], Config], tmp_path: Path) -> None:
    lines, config = decay
    site = Site(tmp_path / "log", lines, config)
    first = site.monitor()
    site.send(100)
    second = site.monitor()
    with pytest.raises(WriterFenced):
        first.step()
    second.step()
    assert site.log.end("ledger") == second.pipeline.fold.offset


def test_clock_that_rounds_without_records_moved_goes_on_from_there_after_a_restart(tmp_path: Path) -> None:
    ledgers = []
    for restarts in (False, True):
        site = Site(tmp_path / f"log-{restarts}", [], parse("models: {m: {labels: {mature_after: 10s, horizon: 1h}}}"))
        live = site.monitor()
        for version in ("v1", "v2"):
            event = {"model": "m", "version": version, "status": "live"}
            site.log.append("deployments", [Message(json.dumps(event).encode(), b"m")])
            request = {"id": version, "model": "m", "version": version, "output": 1}
            site.log.append("predictions", [Message(json.dumps(request).encode(), b"m")])
            live.step()
            site.clock.now += 60_000
            live.step()
            # Less than a round later the next version is deployed.
            site.clock.now += 1
            live = site.monitor() if restarts else live
        ledgers.append([entry.value for entry in site.log.read("ledger", 0)])
    assert ledgers[0] == ledgers[1]


def test_commands_follow_what_is_desired_and_are_asserted_again_as_heartbeat(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse("models: {m: {policy: {mode: act}}, watched: {policy: {mode: observe}}}"))
    live = site.monitor()
    for model in ("m", "watched"):
        site.clock.now = 1_772_000_000_000
        site.deploy({"model": model, "version": "v1", "status": "live", "ts": 1_772_000_000_000})
    live.step()
    (command,) = live.publish()
    assert (command.model, command.serve, command.action, command.audience) == ("m", "v1", "deploy", "prod")
    assert live.publish() == []
    site.clock.now += 60_000
    (beat,) = live.publish()
    assert (beat.epoch, beat.serve) == (command.epoch, "v1")
    assert beat.issued_ts > command.issued_ts
    assert [decode_command(record.value) for record in site.log.latest("control").values()] == [beat]


def test_clock_that_is_set_back_neither_silences_the_heartbeat_nor_makes_an_order_expire(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse("models: {m: {policy: {mode: act}}}"))
    live = site.monitor()
    hour_ms = 3_600_000
    site.clock.now = 10 * hour_ms

    def deploy(version: str) -> None:
        site.deploy({"model": "m", "version": version, "status": "live"})
        live.step()

    deploy("v1")
    (first,) = live.publish()
    site.clock.now -= hour_ms
    assert live.publish() == []
    site.clock.now += 60_000
    (beat,) = live.publish()
    assert (beat.epoch, beat.issued_ts - first.issued_ts) == (first.epoch, 60_000)
    # A monitor that starts with the clock set back goes on from the time of the log, if that is not far ahead.
    site.clock.now += hour_ms - 300_000
    live = site.monitor()
    deploy("v2")
    (order,) = live.publish()
    assert order.serve == "v2"
    assert order.issued_ts >= beat.issued_ts
    assert order.not_after_ts == order.issued_ts + 600_000
    site.clock.now += 60_000
    assert [command.epoch for command in live.publish()] == [order.epoch]


def test_status_is_on_the_log_after_each_round(decay: tuple[list[bytes], Config], tmp_path: Path) -> None:
    lines, config = decay
    site = Site(tmp_path / "log", lines, config)
    live = site.monitor()
    site.send(1_000)
    live.step()
    status = merged({key: record.value for key, record in site.log.latest("snapshots").items()})
    assert status == live.status()
    assert sum(status.models["m"].outcomes.values()) > 0


def test_what_cannot_be_decoded_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse(""))
    live = site.monitor()
    site.clock.now = 1_000
    site.log.append("predictions", [Message(b"{", b"x"), Message(None, b"y"), Message(b"\xff", b"z")])
    live.step()
    assert sum(live.status().rejected.values()) == 3
    letters = [json.loads(record.value or b"") for record in site.log.read("rejected", 0)]
    assert [(letter["topic"], letter["offset"], letter["code"]) for letter in letters] == [
        ("predictions", 0, "BAD_JSON"),
        ("predictions", 1, "BAD_EVENT"),
        ("predictions", 2, "NOT_UTF8"),
    ]
    site.monitor()
    assert site.log.end("rejected") == 3


def test_operators_act_counts_only_if_an_operator_signed_it(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse("models: {m: {policy: {mode: act}}}"))
    live = site.monitor()
    site.clock.now = 1_000
    act = {"act": "hold", "model": "m", "reason": "maintenance", "by": "ann"}
    value = json.dumps(act).encode()
    forged = [Message(value, b"m"), signed(act, 1_000, CONTROLLER), signed(act, 1_000, DEPLOYER)]
    forged.append(Message(value, b"m", tuple(sign(b"other", OPERATOR, OPERATOR_TYPE))))
    site.log.append("operator", forged)
    live.step()
    assert live.status().rejected == {"UNSIGNED_ACT": 4}
    site.order(act="hold")
    live.step()
    assert live.pipeline.fold.models["m"].state.desired.locks.held


class FollowingReplica:
    """A replica's fence, fed with what stands on the control topic, whose acks go to the log."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.state, _ = restore(None, "m", "prod")

    def read(self, site: Site) -> str:
        record = site.log.latest("control")[b"m"]
        self.state, verdict = judge(self.state, record.value, record.headers, self.trust, site.clock.now)
        for ack in acks(self.state, verdict, Identity("r0", "b"), site.clock.now):
            site.log.append("acks", [Message(encode_line(ack), b"m/r0")])
        return verdict.code or verdict.kind


def test_new_ledger_in_the_place_of_a_lost_one_is_obeyed_once_an_operator_began_an_incarnation(tmp_path: Path) -> None:
    replica = FollowingReplica(TRUST)

    def deploy(site: Site, live: EmbeddedMonitor, version: str) -> None:
        site.deploy({"model": "m", "version": version, "status": "live"})
        live.step()
        live.publish()

    def renew(site: Site, live: EmbeddedMonitor, **fields: int) -> None:
        site.order(act="renew", **fields)
        live.step()
        live.publish()

    config = parse("models: {m: {policy: {mode: act}}}")
    site = Site(tmp_path / "log", [], config)
    site.clock.now = 1_772_000_001_000
    live = site.monitor()
    for version in ("v1", "v2", "v3"):
        deploy(site, live, version)
    assert replica.read(site) == "ACCEPT"
    lost = Site(tmp_path / "another", [], config)
    lost.clock.now = 1_772_000_002_000
    live = lost.monitor()
    deploy(lost, live, "v4")
    assert live.conflicts() == []
    assert replica.read(lost) == "REGRESSION"
    live.step()
    (sentence,) = live.conflicts()
    assert "unship ctl renew 'm'" in sentence
    renew(lost, live, incarnation=1)
    assert live.conflicts() == []
    assert replica.read(lost) == "ACCEPT"
    assert replica.state.epoch is not None
    assert replica.state.epoch[0] == 1
    assert replica.state.wanted is not None
    assert replica.state.wanted.version == "v4"
    # It goes on in that incarnation, after a restart too, and none is begun twice.
    live = lost.monitor()
    lost.clock.now += 1
    renew(lost, live, incarnation=1)
    assert [json.loads(line)["reason"] for line in lost.journal()] == ["OPERATOR_REFUSED"]
    deploy(lost, live, "v5")
    assert replica.read(lost) == "ACCEPT"
    assert replica.state.epoch[0] == 1
