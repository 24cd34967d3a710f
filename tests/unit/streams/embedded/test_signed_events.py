"""Deployments and acts that nobody trusted has signed for here and now change nothing, on an embedded log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.copies import KEPT_MS, NONCES_MAX, Nonces
from tests.keys import BY_OPERATOR, CONTROLLER, DEPLOYER, OPERATOR, STRANGER, signed
from tests.sites import Site
from unship.codec import encode_line
from unship.events import Deployment, OperatorAct
from unship.log.embedded.log import Message
from unship.signing import AHEAD_MS_MAX, DEPLOYMENT_TYPE, VALID_MS, sign

START = 1_767_600_000_000
MINUTE, MONTH = 60_000, 30 * 86_400_000
ACTING = "models: {m: {policy: {mode: act}}}"


class Bench:
    """A monitor in mode act, and a stranger who may append to every topic."""

    def __init__(self, folder: Path, config: str = ACTING) -> None:
        self.site = Site(folder, [], parse(config))
        self.site.clock.now = START
        self.live = self.site.monitor()

    def append(self, topic: str, *records: Message) -> None:
        self.site.clock.now += MINUTE
        self.site.log.append(topic, list(records))
        self.live.step()
        self.live.publish()

    def deploy(self, version: str, **fields: Any) -> None:
        self.append("deployments", self.deployment(version, **fields))

    def deployment(self, version: str, **fields: Any) -> Message:
        return signed({"model": "m", "version": version, "status": "live", **fields}, self.site.clock.now)

    def act(self, **fields: Any) -> Message:
        return signed({"model": "m", "reason": "drill", "by": "ann", **fields}, self.site.clock.now)

    def restart(self) -> EmbeddedMonitor:
        self.live = self.site.monitor()
        return self.live

    @property
    def serves(self) -> str | None:
        found = self.live.status().models.get("m")
        return None if found is None else found.desired

    @property
    def rejected(self) -> dict[str, int]:
        return self.live.status().rejected


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


UNSIGNED = [
    lambda value: Message(value, b"m"),
    lambda value: Message(value, b"m", (("unship_sig", b"A" * 88),)),
    *(lambda value, key=key: signed(value, START, key) for key in (STRANGER, CONTROLLER)),
]


@pytest.mark.parametrize("status", ["live", "shadow", "holdback", "retired"])
@pytest.mark.parametrize("by", UNSIGNED, ids=["nobody", "garbage", "stranger", "controller"])
def test_deployment_that_no_deployer_signed_changes_and_announces_nothing(bench: Bench, status: str, by: Any) -> None:
    bench.deploy("v1")
    bench.deploy("v2")
    before = msgspec.json.encode(bench.live.pipeline.fold.models["m"].state.desired)
    for version in ("v1", "v2", "evil"):
        bench.append("deployments", by(msgspec.json.encode({"model": "m", "version": version, "status": status})))
    assert msgspec.json.encode(bench.live.pipeline.fold.models["m"].state.desired) == before
    assert bench.serves == "v2"
    assert bench.rejected == {"UNSIGNED_DEPLOYMENT": 3}
    notices = [msgspec.json.decode(value) for value in bench.site.journal()]
    assert [(each["reason"], each["action"], each["version"]) for each in notices] == [
        ("UNSIGNED_DEPLOYMENT", "page", "v1")
    ]


def test_unsigned_deployments_of_invented_models_make_neither_models_nor_pages(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log", "defaults: {policy: {mode: act}}")
    values = [msgspec.json.encode({"model": f"x{i}", "version": "v", "status": "live"}) for i in range(50)]
    bench.append("deployments", *(Message(value, b"x") for value in values))
    assert bench.rejected == {"UNSIGNED_DEPLOYMENT": 50}
    assert bench.live.status().models == {}
    assert bench.site.journal() == []


def test_version_that_only_answers_is_commanded_to_nobody_before_a_signed_deployment(bench: Bench) -> None:
    request = {"model": "m", "version": "evil", "output": 1}
    for number in range(100):
        bench.append("predictions", Message(msgspec.json.encode(request | {"id": f"p-{number}"})))
    assert (bench.serves, bench.site.log.end("control")) == ("evil", 0)
    bench.deploy("v1")
    assert (bench.serves, bench.site.log.end("control")) == ("v1", 1)


def test_unsigned_deployment_ahead_of_the_same_signed_one_does_not_take_its_place(bench: Bench) -> None:
    bench.deploy("v1")
    forged = msgspec.json.encode({"model": "m", "version": "v2", "status": "live", "ts": START + 5 * MINUTE})
    bench.append("deployments", Message(forged, b"m"), bench.deployment("v2", ts=START + 5 * MINUTE))
    assert bench.serves == "v2"


def test_unsigned_deployments_are_followed_where_the_policy_allows_any(tmp_path: Path) -> None:
    for number, policy in enumerate(("{mode: act, deployments: any}", "{mode: observe}")):
        bench = Bench(tmp_path / f"log-{number}", f"models: {{m: {{policy: {policy}}}}}")
        value = msgspec.json.encode({"model": "m", "version": "v1", "status": "live"})
        bench.append("deployments", Message(value, b"m"))
        assert (bench.serves, bench.rejected) == ("v1", {})


@pytest.mark.parametrize("key", [DEPLOYER, OPERATOR], ids=["deployer", "operator"])
def test_deployment_is_followed_whoever_of_the_two_signed_it(bench: Bench, key: Any) -> None:
    bench.append("deployments", signed({"model": "m", "version": "v1", "status": "live"}, START, key))
    assert bench.serves == "v1"


def test_copy_of_an_act_is_followed_neither_soon_nor_a_month_later(bench: Bench) -> None:
    bench.deploy("v1")
    bench.deploy("v2")
    back = bench.act(act="rollback", to="v1")
    bench.append("operator", back)
    assert bench.serves == "v1"
    release = bench.act(act="release", version="v2")
    bench.append("operator", release)
    bench.deploy("v2")
    assert bench.serves == "v2"
    bench.append("operator", back, release)
    bench.restart()
    bench.append("operator", back)
    bench.live.save_snapshot()
    bench.restart()
    bench.append("operator", back)
    assert (bench.serves, bench.rejected) == ("v2", {"ACT_REPEATED": 4})
    bench.site.clock.now += MONTH
    bench.append("operator", back, release)
    assert (bench.serves, bench.rejected) == ("v2", {"ACT_REPEATED": 4, "ACT_EXPIRED": 2})


def test_copy_of_a_deployment_does_not_bring_an_old_version_back(bench: Bench) -> None:
    old = bench.deployment("v1")
    bench.append("deployments", old)
    bench.deploy("v2")
    bench.append("deployments", old)
    assert (bench.serves, bench.rejected) == ("v2", {"ACT_REPEATED": 1})


def test_event_signed_for_another_installation_does_nothing_here(bench: Bench) -> None:
    bench.deploy("v1")
    deployment = {"model": "m", "version": "v2", "status": "live"}
    bench.append("deployments", signed(deployment, bench.site.clock.now, audience="staging"))
    act = {"act": "hold", "model": "m", "reason": "drill", "by": "ann"}
    bench.append("operator", signed(act, bench.site.clock.now, audience="staging"))
    assert (bench.serves, bench.rejected) == ("v1", {"WRONG_AUDIENCE": 2})
    assert not bench.live.pipeline.fold.models["m"].state.desired.locks.held
    assert bench.site.log.end("rejected") == 2


@pytest.mark.parametrize(("late_ms", "followed"), [
    (-AHEAD_MS_MAX, True), (-AHEAD_MS_MAX - 1, False), (VALID_MS, True), (VALID_MS + 1, False),
])  # fmt: skip
def test_what_counts_is_when_the_log_appended_it(bench: Bench, late_ms: int, followed: bool) -> None:
    appended = START + MINUTE
    bench.append("deployments", signed({"model": "m", "version": "v1", "status": "live"}, appended - late_ms))
    assert (bench.serves, bench.rejected) == (("v1", {}) if followed else (None, {"ACT_EXPIRED": 1}))


@pytest.mark.parametrize(("fields", "code"), [
    ({"issued_ts": None}, "ACT_EXPIRED"),
    ({"not_after_ts": None}, "ACT_EXPIRED"),
    ({"not_after_ts": START + 3_600_001}, "ACT_EXPIRED"),
    ({"not_after_ts": START - 1, "issued_ts": START}, "ACT_EXPIRED"),
    ({"nonce": None}, "ACT_REPEATED"),
    ({"nonce": ""}, "ACT_REPEATED"),
    ({"audience": None}, "WRONG_AUDIENCE"),
])  # fmt: skip
def test_signature_without_what_ends_its_use_is_worth_nothing(bench: Bench, fields: dict[str, Any], code: str) -> None:
    whole: dict[str, Any] = {"audience": "prod", "issued_ts": START, "not_after_ts": START + VALID_MS, "nonce": "n"}
    value = encode_line(Deployment(model="m", version="v1", status="live", **(whole | fields)))
    bench.append("deployments", Message(value, b"m", tuple(sign(value, DEPLOYER, DEPLOYMENT_TYPE))))
    assert (bench.serves, bench.rejected) == (None, {code: 1})


def test_nonces_are_kept_for_their_time_and_bounded() -> None:
    def event(number: int, at_ms: int) -> OperatorAct:
        place = ("operator", 0, number, at_ms)
        return OperatorAct(
            act="hold", model="m", reason="", by="x", nonce=f"n{number}", not_after_ts=at_ms + 1, at=place
        )

    nonces = Nonces()
    for number in range(NONCES_MAX + 10):
        assert not nonces.is_repeated(event(number, number), BY_OPERATOR)
    assert nonces.is_repeated(event(NONCES_MAX, NONCES_MAX), BY_OPERATOR)
    assert len(nonces.until) == NONCES_MAX
    assert not nonces.is_repeated(event(-1, KEPT_MS + 2 * NONCES_MAX), BY_OPERATOR)
    assert len(nonces.until) == 1
