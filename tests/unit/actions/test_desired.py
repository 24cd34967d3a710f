"""The desired state: which version should serve, and what may not."""

from __future__ import annotations

from typing import Any

import pytest

from actions.desired import EARLIER_MAX, Changes, DeploymentResult, DesiredState, Proposal, deploy
from unship.commands import Quarantined
from unship.events import Deployment, Reference

A, B = "sha256:aa", "sha256:bb"


class Model:
    """A desired state with a clock and epochs that rise by themselves."""

    def __init__(self) -> None:
        self.desired = DesiredState()
        self.step = 0

    def deploy(self, version: str, status: Any = "live", ts: int | None = None, **fields: Any) -> DeploymentResult:
        self.step += 1
        event = Deployment(model="m", version=version, status=status, ts=ts, **fields)
        return deploy(self.desired, event, self.step * 10, (0, self.step, 0))

    def roll_back(self, to: str, automatic: bool = True) -> None:
        self.step += 1
        self.desired.roll_back(to, (0, self.step, 0), self.step * 10, automatic)


def live(*versions: str) -> Model:
    model = Model()
    for version in versions:
        assert model.deploy(version) is DeploymentResult.LIVE
    return model


# Deployments


def test_newest_live_deployment_is_desired_under_a_new_epoch() -> None:
    model = live("v1")
    assert (model.desired.serve, model.desired.epoch) == ("v1", (0, 1, 0))
    assert model.deploy("v2", artifact=A) is DeploymentResult.LIVE
    assert (model.desired.serve, model.desired.artifact, model.desired.epoch) == ("v2", A, (0, 2, 0))
    assert model.desired.changes.earlier == ["v1"]


@pytest.mark.parametrize("status", ["shadow", "holdback", "retired"])
def test_other_deployments_are_recorded_and_change_nothing_desired(status: str) -> None:
    model = live("v1")
    assert model.deploy("v2", status) is DeploymentResult.RECORDED
    assert (model.desired.serve, model.desired.epoch) == ("v1", (0, 1, 0))
    assert model.desired.facts("v2").status == status


def test_live_deployment_of_what_serves_is_a_repeat_and_keeps_the_epoch() -> None:
    model = live("v1")
    assert model.deploy("v1") is DeploymentResult.REPEATED
    assert model.desired.epoch == (0, 1, 0)


def test_deployment_older_than_the_newest_of_its_version_is_stale_and_changes_no_fact() -> None:
    model = live("v1")
    model.deploy("v2", "shadow", ts=100, artifact=A)
    assert model.deploy("v2", "retired", ts=99, artifact=B) is DeploymentResult.STALE
    assert (model.desired.facts("v2").status, model.desired.facts("v2").artifact) == ("shadow", A)


def test_live_deployment_that_arrives_after_its_successor_is_an_earlier_version() -> None:
    model = Model()
    model.deploy("v2", ts=100)
    assert model.deploy("v1", ts=50) is DeploymentResult.STALE
    assert (model.desired.serve, model.desired.changes.earlier) == ("v2", ["v1"])
    assert model.deploy("v1", ts=50) is DeploymentResult.STALE
    assert model.desired.changes.earlier == ["v1"]


def test_deployment_of_a_quarantined_version_is_refused_and_the_next_good_one_is_taken() -> None:
    model = live("v1", "v2")
    model.roll_back("v1")
    assert model.deploy("v2") is DeploymentResult.QUARANTINED
    assert model.desired.serve == "v1"
    assert model.deploy("v3") is DeploymentResult.LIVE
    assert model.desired.serve == "v3"


@pytest.mark.parametrize("order", ["pinned", "held"])
def test_deployment_against_an_operators_order_is_set_aside(order: str) -> None:
    model = live("v1")
    setattr(model.desired.locks, order, True)
    assert model.deploy("v2") is DeploymentResult.PINNED
    assert (model.desired.serve, model.desired.epoch) == ("v1", (0, 1, 0))
    setattr(model.desired.locks, order, False)
    assert model.deploy("v2") is DeploymentResult.LIVE


def test_repeat_under_a_pin_is_a_repeat() -> None:
    model = live("v1")
    model.desired.locks.pinned = True
    assert model.deploy("v1") is DeploymentResult.REPEATED


def test_facts_of_a_deployment_are_kept_until_another_says_otherwise() -> None:
    model = Model()
    model.deploy("v1", artifact=A, reference={"brier": Reference(mean=0.1, n=700)})
    model.deploy("v1")
    facts = model.desired.facts("v1")
    assert (facts.artifact, facts.reference) == (A, {"brier": (0.1, 700.0)})
    model.deploy("v1", artifact=B, reference={"zero_one": Reference(mean=0.2, n=5)})
    assert (facts.artifact, facts.reference) == (B, {"zero_one": (0.2, 5.0)})


def test_facts_of_one_model_are_not_those_of_another() -> None:
    first, second = DesiredState(), DesiredState()
    first.versions.know("v1").reference["zero_one"] = (0.5, 1.0)
    first.changes.switches.append(1)
    assert second.facts("v1").reference == {}
    assert second.changes.switches == []


# Quarantine


@pytest.mark.parametrize(
    ("version", "artifact", "quarantined"),
    [
        ("v2", A, True),  # the same bytes under the same name
        ("retag", A, True),  # the same bytes under another name
        ("v2", B, False),  # other bytes under the same name: it was built again
        ("v2", None, True),  # bytes unknown: the name decides
        ("v3", B, False),
        ("v3", None, False),
    ],
)
def test_quarantine_by_artifact_or_by_name_where_an_artifact_is_missing(
    version: str, artifact: str | None, quarantined: bool
) -> None:
    model = Model()
    model.desired.quarantine = [Quarantined("v2", A)]
    model.desired.versions.know(version).artifact = artifact
    assert model.desired.is_quarantined(version) is quarantined


@pytest.mark.parametrize(
    ("version", "artifact", "quarantined"), [("v2", None, True), ("v2", B, True), ("v3", B, False)]
)
def test_quarantine_without_an_artifact_goes_by_name(version: str, artifact: str | None, quarantined: bool) -> None:
    model = Model()
    model.desired.quarantine = [Quarantined("v2", None)]
    model.desired.versions.know(version).artifact = artifact
    assert model.desired.is_quarantined(version) is quarantined


def with_a_in_quarantine() -> Model:
    """Return a model that was rolled back from v2, whose digest is known, to v1, whose digest is not."""
    model = live("v1")
    model.deploy("v2", artifact=A)
    model.roll_back("v1")
    return model


def test_version_without_a_digest_is_barred_while_one_with_a_digest_is_in_quarantine() -> None:
    model = with_a_in_quarantine()
    assert model.deploy("retag") is DeploymentResult.QUARANTINED
    assert model.desired.why_barred("retag") == (
        "retag has no digest, and v2 is in quarantine with one, so the two may be the same bytes: deploy retag with "
        "its digest (artifact: sha256:...), or release v2"
    )
    assert model.deploy("retag", artifact=B) is DeploymentResult.LIVE


def test_version_without_a_digest_serves_once_the_one_in_quarantine_is_released() -> None:
    model = with_a_in_quarantine()
    model.desired.release("v2", (0, 9, 0))
    assert model.deploy("retag") is DeploymentResult.LIVE


def test_version_that_was_live_before_needs_no_digest() -> None:
    model = live("v0", "v1")
    model.deploy("v2", artifact=A)
    model.roll_back("v1")
    assert [model.desired.why_barred(version) for version in ("v0", "v1")] == [None, None]
    assert model.desired.past() == ["v0"]


def test_version_without_a_digest_is_no_target_and_becomes_none_by_an_old_deployment() -> None:
    model = with_a_in_quarantine()
    model.deploy("retag", "holdback")
    assert model.desired.ladder([]) == []
    assert model.deploy("other", ts=1) is DeploymentResult.STALE
    assert model.desired.past() == []


def test_repeated_deployment_with_another_digest_hides_none_from_the_quarantine() -> None:
    model = live("v1")
    model.deploy("v2", artifact=A)
    assert model.deploy("v2", artifact=B) is DeploymentResult.REPEATED
    model.roll_back("v1")
    assert [model.deploy("retag", artifact=digest) for digest in (A, B)] == [DeploymentResult.QUARANTINED] * 2


def test_rollback_quarantines_what_served_with_its_artifact() -> None:
    model = live("v1")
    model.deploy("v2", artifact=A)
    model.roll_back("v1")
    assert model.desired.serve == "v1"
    assert model.desired.quarantine == [Quarantined("v2", A)]
    assert model.desired.epoch == (0, 3, 0)


def test_version_is_quarantined_once() -> None:
    model = live("v1", "v2")
    model.roll_back("v1")
    model.roll_back("v2")
    model.roll_back("v1")
    assert [entry.version for entry in model.desired.quarantine] == ["v2", "v1"]


def test_rollback_to_what_serves_quarantines_nothing() -> None:
    model = live("v1")
    model.roll_back("v1")
    assert (model.desired.serve, model.desired.quarantine) == ("v1", [])


# The ladder


def test_ladder_holds_holdback_and_shadow_versions_newest_deployment_first() -> None:
    model = live("v9")
    model.deploy("b", "holdback", ts=100)
    model.deploy("a", "shadow", ts=300)
    model.deploy("c", "holdback", ts=200)
    model.deploy("r", "retired", ts=400)
    assert model.desired.ladder([]) == ["a", "c", "b"]


def test_versions_that_answer_beside_stand_on_the_ladder_behind_deployed_ones() -> None:
    model = live("v9")
    model.deploy("b", "holdback", ts=100)
    assert model.desired.ladder(["seen"]) == ["b", "seen"]
    assert model.desired.ladder(["v9"]) == ["b"]


def test_past_holds_earlier_live_versions_newest_first_that_may_serve_again() -> None:
    model = live("v1", "v2", "v3", "v4")
    model.roll_back("v3")
    model.deploy("v5")
    model.deploy("v1", "retired")
    # v4 is in quarantine, v1 is retired, v5 serves.
    assert model.desired.past() == ["v3", "v2"]


def test_version_that_never_served_is_no_past() -> None:
    model = live("v1")
    model.deploy("v2", "shadow")
    assert model.desired.past() == []


def test_retired_version_is_no_target_even_if_it_answers() -> None:
    model = live("v9")
    model.deploy("old", "holdback", ts=100)
    model.deploy("old", "retired", ts=200)
    assert model.desired.ladder(["old", "seen"]) == ["seen"]


def test_versions_of_equal_age_have_a_fixed_order() -> None:
    model = live("v9")
    assert model.desired.ladder(["x", "y", "z"]) == model.desired.ladder(["z", "y", "x"]) == ["z", "y", "x"]


def test_quarantined_and_serving_versions_are_not_on_the_ladder() -> None:
    model = live("v1", "v2")
    model.deploy("v1", "holdback", ts=100)
    model.deploy("v0", "shadow", ts=90)
    assert model.desired.ladder([]) == ["v1", "v0"]
    model.roll_back("v1")
    model.deploy("v2", "shadow", ts=200)
    assert model.desired.ladder(["v2"]) == ["v0"]


# Changes and switches


def test_earlier_versions_are_newest_first_each_once_and_bounded() -> None:
    model = live("a", "b")
    assert model.deploy("a") is DeploymentResult.LIVE
    assert model.desired.changes.earlier == ["b"]
    for i in range(2 * EARLIER_MAX):
        model.deploy(f"v{i}")
    assert model.desired.changes.earlier == [f"v{2 * EARLIER_MAX - 2 - i}" for i in range(EARLIER_MAX)]


def test_change_of_the_desired_state_closes_an_open_proposal() -> None:
    model = live("v1")
    model.desired.proposal = Proposal("d", "v1", "v0", 5)
    model.deploy("v1")
    assert model.desired.proposal is not None
    model.deploy("v2")
    assert model.desired.proposal is None


def test_only_automatic_rollbacks_are_switches() -> None:
    model = live("v1", "v2")
    model.roll_back("v1", automatic=False)
    assert model.desired.changes.switches == []
    model.deploy("v3")
    model.roll_back("v1")
    assert model.desired.changes.switches == [50]


def test_switches_leave_the_window_after_its_span() -> None:
    desired = DesiredState(changes=Changes(switches=[100, 200, 300]))
    assert desired.recent_switches(300, 200) == [200, 300]
    assert desired.recent_switches(300, 201) == [100, 200, 300]
    assert desired.recent_switches(500, 200) == []


def test_versions_that_can_be_gone_back_to_are_the_newest_and_those_that_answer() -> None:
    model = live("v0")
    for number in range(3 * EARLIER_MAX):
        model.deploy(f"s{number}", "shadow", ts=100 + number)
    ladder = model.desired.ladder(["s1", "unknown"])
    assert ladder == [
        *(f"s{number}" for number in range(3 * EARLIER_MAX - 1, 2 * EARLIER_MAX - 1, -1)),
        "s1",
        "unknown",
    ]
