"""A healthy version that is replaced keeps a share of the units: when it begins, rises and ends."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET

from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.status import model_status
from streams.pipeline import configuration_record
from tests.worlds.shares.fleet import START, DealtFleet

WELL = {"v1": 0.1, "v2": 0.1, "v3": 0.1}
WORSE = WELL | {"v2": 0.3}


def config_of(holdback: str = "{share: 5%, raise_to: 30%}", mode: str = "act", more: str = "") -> Config:
    kept = f", holdback: {holdback}" if holdback else ""
    policy = f"mode: {mode}, deployments: any, confirm_within: 30d{more}{kept}"
    return parse(f"models: {{m: {{one_false_alarm_per: 10000, policy: {{{policy}}}}}}}")


def released(config: Config | None = None, before: int = 1_200, seed: int = 7) -> DealtFleet:
    """v2, which replaced v1."""
    fleet = DealtFleet(config_of() if config is None else config, seed)
    return fleet.deploy("v1").answer(before, WELL).deploy("v2")


def shares_of(fleet: DealtFleet) -> object:
    command = fleet.command()
    assert command is not None
    return command.shares or None


def worse(fleet: DealtFleet, until_reason: str = "CONFIRMING") -> DealtFleet:
    """Let v2 get worse until a decision has the reason."""
    fleet.answer(600, WELL)
    while not any(decision.reason == until_reason for decision in fleet.decisions):
        fleet.answer(50, WORSE)
    return fleet


def test_version_that_is_replaced_while_healthy_keeps_its_share_under_the_epoch_of_the_release() -> None:
    fleet = released()
    command = fleet.command()
    assert command is not None
    assert (command.serve, command.shares, command.action) == ("v2", {"v1": 0.05}, "deploy")
    assert command.period_epoch == command.epoch
    fleet.answer(2_000, WELL)
    assert 60 < fleet.answered["v1", "holdback"] < 140
    status = model_status(fleet.model, fleet.now)
    assert status.shares == {"v1": 0.05}
    assert status.beside == {}
    other = fleet.model.state.live and fleet.model.state.live.concurrent["v1"]
    assert other
    assert (other.role, other.beside) == ("holdback", None)
    assert other.health.outcomes == fleet.answered["v1", "holdback"]
    assert not fleet.run.counts["ROLE_MISMATCH"] + fleet.run.counts["STILL_SERVED"]


@pytest.mark.parametrize(
    ("config", "before"),
    [(config_of(""), 1_200), (config_of(), 300), (config_of(mode="observe"), 1_200)],
    ids=["none is configured", "too few outcomes to be known as healthy", "nothing is commanded"],
)
def test_no_share_where_it_is_not_to_be(config: Config, before: int) -> None:
    fleet = released(config, before)
    assert fleet.desired.serve == "v2"
    assert fleet.desired.holdback.shares == {}


def test_version_that_was_never_deployed_keeps_no_share() -> None:
    fleet = DealtFleet(config_of())
    fleet.serves = "v1"
    fleet.answer(1_200, WELL).deploy("v2")
    assert fleet.desired.serve == "v2"
    assert shares_of(fleet) is None


@pytest.mark.parametrize("status", ["holdback", "shadow"])
def test_version_that_users_deploy_beside_keeps_no_share_of_the_monitor(status: str) -> None:
    before = DealtFleet(config_of()).deploy("v1").answer(1_200, WELL).deploy("v1", status).deploy("v2")
    assert (before.desired.serve, shares_of(before)) == ("v2", None)
    after = released().deploy("v1", status)
    assert shares_of(after) is None


@pytest.mark.parametrize("act", ["hold", "pin"])
def test_hold_and_pin_end_the_share_under_a_new_epoch_and_the_live_period_goes_on(act: str) -> None:
    fleet = released().answer(600, WELL)
    before, period = fleet.command(), fleet.model.state.live
    after = fleet.act(act, **({"version": "v2"} if act == "pin" else {})).command()
    assert before is not None
    assert after is not None
    assert (after.serve, after.shares, after.action) == ("v2", UNSET, "shares")
    assert after.epoch > before.epoch
    assert fleet.model.state.live is period


def test_operators_rollback_ends_the_share() -> None:
    fleet = released().answer(100, WELL).act("rollback", to="v1")
    command = fleet.command()
    assert command is not None
    assert (command.serve, command.shares) == ("v1", UNSET)


def test_share_ends_when_its_time_is_over_to_the_millisecond() -> None:
    fleet = released(config_of("{share: 5%, keep: 1h}"))
    end = fleet.desired.holdback.until
    assert end == fleet.now + 3_600_000
    fleet.wait(end - fleet.now - 1)
    assert shares_of(fleet) == {"v1": 0.05}
    fleet.wait(1)
    assert shares_of(fleet) is None
    assert released(config_of("{share: 5%, keep: always}")).wait(10**11).desired.holdback.shares == {"v1": 0.05}


def test_next_release_opens_its_own_share_and_deals_units_out_anew() -> None:
    fleet = released().answer(700, WELL)
    first = fleet.command()
    second = fleet.deploy("v3").command()
    assert first is not None
    assert second is not None
    assert second.shares == {"v2": 0.05}
    assert second.period_epoch == second.epoch > first.epoch


def test_version_that_an_operator_ordered_keeps_a_share_and_one_in_quarantine_none() -> None:
    fleet = released().answer(10, WELL)
    fleet.act("rollback", to="v3", override=True)  # type: ignore[arg-type]
    assert [entry.version for entry in fleet.desired.quarantine] == ["v2"]
    fleet.answer(1_200, WELL).deploy("v4")
    assert fleet.desired.serve == "v4"
    assert fleet.desired.holdback.shares == {"v3": 0.05}


def test_share_rises_once_with_the_decision_and_only_adds_to_the_period() -> None:
    fleet = released()
    first, period = fleet.command(), fleet.model.state.live
    worse(fleet)
    decision, command = fleet.decisions[-1], fleet.command()
    assert first is not None
    assert command is not None
    assert (decision.reason, decision.action) == ("CONFIRMING", "none")
    assert (command.shares, command.decision, command.action) == ({"v1": 0.3}, decision.id, "shares")
    assert command.epoch == decision.epoch > first.epoch
    assert command.period_epoch == first.period_epoch
    assert fleet.model.state.live is period
    report = decision.evidence.holdback
    assert report
    assert (report.version, report.share, report.raised_from) == ("v1", 0.3, 0.05)
    assert report.expected_ts is not UNSET
    assert report.expected_ts is not None
    assert report.expected_ts > decision.ts
    fleet.answer(5_000, WORSE, until="rollback")
    last = fleet.decisions[-1]
    assert (last.reason, last.action, last.to) == ("TARGET_BETTER", "rollback", "v1")
    assert last.evidence.comparison
    assert (last.evidence.comparison.basis, last.evidence.comparison.role) == ("concurrent", "holdback")
    assert shares_of(fleet) is None
    assert sum(decision.reason == "CONFIRMING" for decision in fleet.decisions) == 1


def test_without_raise_to_the_share_stays() -> None:
    fleet = worse(released(config_of("{share: 5%}")))
    assert shares_of(fleet) == {"v1": 0.05}
    report = fleet.decisions[-1].evidence.holdback
    assert report
    assert report.raised_from is UNSET


def test_in_mode_approve_an_operator_raises_the_share() -> None:
    fleet = worse(released(config_of(mode="approve")))
    decision = fleet.decisions[-1]
    assert (decision.reason, decision.action, decision.to) == ("CONFIRMING", "propose", None)
    assert decision.evidence.holdback
    assert decision.evidence.holdback.proposed == 0.3
    assert shares_of(fleet) == {"v1": 0.05}
    fleet.act("approve")
    assert shares_of(fleet) == {"v1": 0.3}
    assert fleet.desired.proposal is None
    assert fleet.decisions[-1].evidence.operator
    fleet.answer(5_000, WORSE, until="nothing")
    assert [(d.reason, d.action, d.to) for d in fleet.decisions[-1:]] == [("TARGET_BETTER", "propose", "v1")]


def test_rejected_share_stays_as_it_is_and_is_not_proposed_again() -> None:
    fleet = worse(released(config_of(mode="approve"))).act("reject")
    assert fleet.desired.proposal is None
    fleet.answer(200, WORSE)
    assert shares_of(fleet) == {"v1": 0.05}
    assert sum(decision.action == "propose" for decision in fleet.decisions) == 1


def test_version_held_back_that_got_worse_too_is_no_target() -> None:
    fleet = released(config_of("{share: 50%}")).answer(700, WELL)
    fleet.answer(2_500, {"v1": 0.4, "v2": 0.4})
    assert ("v2", "ALL_DEGRADED", "page", None) in fleet.told()
    assert fleet.desired.serve == "v2"


def test_fleet_that_ignores_shares_goes_on_as_before() -> None:
    fleet = DealtFleet(config_of(), ignores=True).deploy("v1").answer(1_200, WELL).deploy("v2").answer(700, WELL)
    assert set(fleet.answered) == {("v1", "live"), ("v2", "live")}
    fleet.answer(2_000, WORSE)
    assert ("v2", "RECORD_BETTER", "propose", "v1") in fleet.told()


def test_share_ends_where_the_configuration_has_none_any_more() -> None:
    fleet = released().answer(100, WELL)
    fleet.run.began += list(fleet.run.pipeline.apply([configuration_record(config_of(""), numbered=True)]))
    assert shares_of(fleet) is None


def test_share_survives_renew_and_a_saved_fold() -> None:
    fleet = released().act("renew", incarnation=1)  # type: ignore[arg-type]
    command = fleet.command()
    assert command is not None
    assert (command.epoch[0], command.shares) == (1, {"v1": 0.05})
    assert command.period_epoch is not UNSET
    assert command.period_epoch[0] == 0
    saved = msgspec.json.encode(fleet.desired.holdback)
    assert msgspec.json.decode(saved, type=type(fleet.desired.holdback)) == fleet.desired.holdback


def test_share_begins_at_the_clock_of_the_ledger() -> None:
    fleet = released(config_of("{share: 5%, keep: 14d}"))
    assert fleet.desired.holdback.until - fleet.now == 14 * 86_400_000
    assert fleet.now > START


def test_share_ends_where_the_version_turns_out_to_be_the_bytes_in_quarantine() -> None:
    fleet = DealtFleet(config_of()).deploy("v1").answer(1_200, WELL).deploy("v2", artifact="sha256:a")
    fleet.act("rollback", to="v1").answer(1_200, WELL)
    before = fleet.now - 1
    fleet.deploy("v3", artifact="sha256:b").answer(10, WELL)
    assert shares_of(fleet) == {"v1": 0.05}
    # A deployment that is older than the newest one changes nothing but what is known of its version.
    fleet.deploy("v1", artifact="sha256:a", ts=before)  # type: ignore[arg-type]
    assert (fleet.desired.serve, shares_of(fleet)) == ("v3", None)
