"""Keys that are revoked while the monitor runs: what they sign is refused by the monitor, the fold and a replay."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actions.reconcile import Signer
from streams.audit.ledger_audit import audit_topics
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from streams.embedded.topics import EmbeddedTopics
from streams.fold.fold import Fold
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Deployed, Operated, Trusted, trusted_of
from tests.keys import BY_DEPLOYER, BY_OPERATOR, CONTROLLER, DEPLOYER, OPERATOR, SIGNER, STRANGER, TRUST, signed
from tests.sites import Site
from unship.commands import Command, encode_command
from unship.events import INTEGER_MAX, Deployment, OperatorAct
from unship.log.embedded.log import Message
from unship.signing import COMMAND_TYPE, Revoked, Trust, TrustedKey, public_bytes, sign

START = 1_767_600_000_000
CONFIG = parse("models: {m: {policy: {mode: act}}}")


def without(*names: str, since: int = START) -> Trust:
    """Return the trust of the tests with keys that are revoked."""
    keys = [
        msgspec.structs.replace(key, revoked=Revoked(from_ts=since)) if key.name in names else key for key in TRUST.keys
    ]
    return Trust(tuple(keys), TRUST.audience)


def signer_for(trust: Trust) -> Signer:
    return msgspec.structs.replace(SIGNER, trust=trust)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, [], CONFIG)
        self.site.clock.now = START
        self.live = self.site.monitor()

    def round(self) -> EmbeddedMonitor:
        self.site.clock.now += 1_000
        self.live.step()
        self.live.publish()
        return self.live

    @property
    def serves(self) -> str | None:
        return self.live.status().models["m"].desired

    def trust_records(self) -> list[Trusted]:
        found = [read_entry(value).record for value in self.site.ledger()]
        return [record for record in found if isinstance(record, Trusted)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "log")
    bench.site.deploy({"model": "m", "version": "v1", "status": "live"})
    bench.round()
    return bench


def test_revoked_key_deploys_and_orders_nothing_from_then_on_and_a_restart_changes_nothing(bench: Bench) -> None:
    # Appended before, and read after the key was revoked: it holds.
    bench.site.deploy({"model": "m", "version": "v2", "status": "live"})
    bench.site.clock.now += 1
    trust = without("deployer", "operator", since=bench.site.clock.now)
    bench.live.change_keys(signer_for(trust))
    bench.round()
    assert bench.serves == "v2"
    for _ in range(2):
        bench.site.deploy({"model": "m", "version": "evil", "status": "live"})
        bench.site.order(act="rollback", to="v1")
        bench.round()
        assert bench.serves == "v2"
        bench.live = bench.site.monitor(signer_for(trust))
    assert bench.live.status().rejected == {"UNSIGNED_DEPLOYMENT": 2, "UNSIGNED_ACT": 2}
    assert bench.trust_records() == [trusted_of(trust)]


def test_ledger_holds_the_trust_so_that_a_fold_and_an_audit_read_nothing_else(bench: Bench) -> None:
    bench.live.change_keys(signer_for(without("operator", since=bench.site.clock.now)))
    bench.site.deploy({"model": "m", "version": "v2", "status": "live"})
    bench.round()
    bench.live.change_keys(SIGNER)
    bench.round()
    assert len(bench.trust_records()) == 2
    fold = Fold(CONFIG)
    for value in bench.site.ledger():
        fold.step(read_entry(value))
    assert msgspec.json.encode(fold.copies) == msgspec.json.encode(bench.live.pipeline.fold.copies)
    result = audit_topics(EmbeddedTopics(bench.site.log), without("operator", since=bench.site.clock.now + 1))
    assert result.first_difference is None


def test_copy_by_a_copier_that_had_not_read_the_new_trust_is_refused_by_the_fold() -> None:
    fold = Fold(CONFIG)
    at = ("deployments", 0, 0, START)
    early = Deployment(model="m", version="v1", status="live", nonce="1", at=at)
    late = Deployment(model="m", version="v2", status="live", nonce="2", at=("deployments", 0, 1, START + 2))
    act = OperatorAct(act="hold", model="m", reason="", by="x", nonce="3", at=("operator", 0, 0, START + 2))
    revoked = trusted_of(without("deployer", "operator", since=START + 1))
    for record in (
        revoked,
        Deployed(-1, early, BY_DEPLOYER),
        Deployed(-1, late, BY_DEPLOYER),
        Operated(-1, act, BY_OPERATOR),
    ):
        fold.step(entry_of(record))
    desired = fold.models["m"].state.desired
    assert (desired.serve, desired.locks.held) == ("v1", False)
    assert fold.counts() == {"UNSIGNED_DEPLOYMENT": 1, "UNSIGNED_ACT": 1}


def test_command_of_a_stolen_key_stops_the_commands_until_it_is_revoked(bench: Bench) -> None:
    command = Command(
        model="m", epoch=(INTEGER_MAX, 0, 0), serve="evil", quarantine=(), action="deploy", issued_ts=START,
        not_after_ts=START, audience="prod",
    )  # fmt: skip
    value = encode_command(command)
    bench.site.log.append("control", [Message(value, b"m", tuple(sign(value, CONTROLLER, COMMAND_TYPE)))])
    bench.live = bench.site.monitor()
    (sentence,) = bench.live.conflicts()
    assert "unship ctl renew 'm'" in sentence
    assert bench.live.publish() == []
    new = TrustedKey("controller-2", public_bytes(STRANGER), ("controller",))
    trust = without("controller")
    signer = Signer("prod", lambda value: sign(value, STRANGER, COMMAND_TYPE), Trust((*trust.keys, new), "prod"))
    bench.live.change_keys(msgspec.structs.replace(signer, may_command=False))
    assert (bench.live.conflicts(), bench.live.publish()) == ([], [])
    bench.live.change_keys(signer)
    (sent,) = bench.live.publish()
    assert sent.serve == "v1"


def test_claims_of_a_stranger_to_know_a_higher_epoch_make_no_alarm(bench: Bench) -> None:
    log, far = bench.site.log, [INTEGER_MAX] * 3
    request = {"id": "a", "model": "m", "version": "v1", "output": 1, "replica": "evil", "epoch": far}
    ack = {"model": "m", "replica": "evil2", "boot": "b", "epoch": far, "stage": "serving", "serving": "v1"}
    mine = list(bench.live.status().models["m"].epoch)
    log.append("predictions", [Message(msgspec.json.encode(request), b"a")])
    log.append("acks", [Message(msgspec.json.encode(ack), b"m/evil2")])
    bench.round()
    assert bench.live.conflicts() == []
    # Nor does one that refuses, as long as a replica obeys.
    refusal = ack | {"replica": "evil3", "epoch": mine, "stage": "refused", "code": "REGRESSION"}
    obeys = ack | {"replica": "r-1", "epoch": mine}
    log.append("acks", [Message(msgspec.json.encode(each), b"m/r") for each in (refusal, obeys)])
    bench.round()
    assert bench.live.conflicts() == []


@pytest.mark.parametrize("incarnation", [0, 1_001, INTEGER_MAX])
def test_renewal_cannot_use_up_the_incarnations(bench: Bench, incarnation: int) -> None:
    bench.site.order(act="renew", incarnation=incarnation)
    bench.round()
    assert bench.live.status().models["m"].epoch[0] == 0
    assert msgspec.json.decode(bench.site.journal()[-1])["reason"] == "OPERATOR_REFUSED"
    bench.site.order(act="renew", incarnation=1_000)
    bench.round()
    assert bench.live.status().models["m"].epoch[0] == 1_000


def test_deployer_may_not_order_and_operator_may_deploy(bench: Bench) -> None:
    bench.site.log.append("operator", [signed({"act": "hold", "model": "m", "reason": "", "by": "x"}, START, DEPLOYER)])
    deployment = {"model": "m", "version": "v2", "status": "live"}
    bench.site.log.append("deployments", [signed(deployment, bench.site.clock.now, OPERATOR)])
    bench.round()
    assert (bench.serves, bench.live.status().rejected) == ("v2", {"UNSIGNED_ACT": 1})
