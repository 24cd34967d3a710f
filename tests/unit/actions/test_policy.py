"""Every guard fires where it should and stays silent where it should not, in one fixed order."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions import policy
from actions.evidence import Findings, Quorum, View
from actions.policy import GUARDS, Guard, Ruling, decide
from actions.reasons import Action, Reason, Verdict
from detectors.rows.units import UNITS_LEAST

#: A version that got worse, with a target that is known to be better: nothing speaks against a rollback.
BAD = Findings(
    version="v42",
    degraded=True,
    degraded_since=1_000,
    any_target=True,
    target="v41",
    confirmed=True,
    slice={"country": "DE"},
)
UNSURE = msgspec.structs.replace(BAD, confirmed=False, target=None)
#: Nothing answers beside it, but an earlier version was better by its record.
PAST = msgspec.structs.replace(BAD, confirmed=False, on_record=True)
MODES = ["act", "approve", "observe"]
VIEW = View(now=2_000, mode="act", cooldown_ms=500, switches_max=2, confirm_within_ms=5_000, others_max=3)


def findings(base: Findings = BAD, **changes: Any) -> Findings:
    return msgspec.structs.replace(base, **changes)


def view(**changes: Any) -> View:
    return msgspec.structs.replace(VIEW, **changes)


#: For each guard: its reason, then cases in which it fires, then cases in which it does not.
TABLE: dict[Guard, tuple[Reason, list[tuple[Findings, View]], list[tuple[Findings, View]]]] = {
    policy.incomputable: (Reason.ERROR, [(findings(incomputable=True), VIEW)], [(BAD, VIEW)]),
    policy.blind: (Reason.BLIND, [(findings(blind=True), VIEW)], [(BAD, VIEW)]),
    policy.implausible_labels: (Reason.IMPLAUSIBLE_LABELS, [(findings(implausible=True), VIEW)], [(BAD, VIEW)]),
    policy.coverage_shift: (Reason.COVERAGE_SHIFT, [(findings(coverage_shift=True), VIEW)], [(BAD, VIEW)]),
    policy.learning: (
        Reason.LEARNING,
        [(findings(degraded=False, learning=True), VIEW)],
        # An alarm needs no number of outcomes.
        [(findings(learning=True), VIEW), (findings(degraded=False), VIEW)],
    ),
    policy.healthy: (Reason.HEALTHY, [(findings(degraded=False), VIEW)], [(BAD, VIEW)]),
    policy.already_rolled_back: (Reason.ALREADY_ROLLED_BACK, [(findings(quarantined=True), VIEW)], [(BAD, VIEW)]),
    policy.held: (Reason.HELD, [(BAD, view(held=True))], [(BAD, VIEW), (BAD, view(pinned=True, stopped=True))]),
    policy.pinned: (Reason.PINNED, [(BAD, view(pinned=True))], [(BAD, VIEW), (BAD, view(held=True))]),
    policy.target_unknown: (
        Reason.TARGET_UNKNOWN,
        [(findings(UNSURE, any_target=False), VIEW)],
        [(BAD, VIEW), (UNSURE, VIEW)],
    ),
    policy.target_unfit: (
        Reason.TARGET_UNFIT,
        [(findings(UNSURE, all_unfit=True), VIEW)],
        [(BAD, VIEW), (UNSURE, VIEW)],
    ),
    policy.label_source_suspect: (
        Reason.LABEL_SOURCE_SUSPECT,
        [(findings(quorum=Quorum.FAILED), VIEW), (findings(PAST, quorum=Quorum.FAILED), VIEW)],
        [(BAD, VIEW), (findings(quorum=Quorum.WAITING), VIEW), (findings(UNSURE, quorum=Quorum.FAILED), VIEW)],
    ),
    policy.quorum_waiting: (
        Reason.CONFIRMING,
        [(findings(quorum=Quorum.WAITING), VIEW), (findings(PAST, quorum=Quorum.WAITING), VIEW)],
        [(BAD, VIEW), (findings(quorum=Quorum.FAILED), VIEW), (findings(UNSURE, quorum=Quorum.WAITING), VIEW)],
    ),
    policy.cooldown: (
        Reason.COOLDOWN,
        [(BAD, view(last_switch=1_501)), (BAD, view(last_switch=2_000)), (PAST, view(last_switch=1_501))],
        [
            (BAD, VIEW),
            # What explains the rise, or speaks against every version, is said first.
            (findings(PAST, mix={"country": "FR"}), view(last_switch=1_501)),
            (findings(PAST, all_degraded=True), view(last_switch=1_501)),
            (BAD, view(last_switch=1_500)),
            (UNSURE, view(last_switch=1_999)),
            (BAD, view(last_switch=2_000, cooldown_ms=0)),
        ],
    ),
    policy.switch_limit: (
        Reason.SWITCH_LIMIT,
        [
            (BAD, view(switches=2)),
            (BAD, view(switches=3)),
            (BAD, view(stopped=True)),
            (BAD, view(switches_max=0)),
            (PAST, view(switches=2)),
        ],
        [(BAD, VIEW), (BAD, view(switches=1)), (UNSURE, view(switches=2)), (UNSURE, view(stopped=True))],
    ),
    policy.fleet_limit: (
        Reason.FLEET_LIMIT,
        [(BAD, view(others=3)), (BAD, view(others=4)), (BAD, view(frozen=True))],
        [(BAD, VIEW), (BAD, view(others=2)), (UNSURE, view(others=3)), (UNSURE, view(frozen=True))],
    ),
    policy.few_units: (
        Reason.FEW_UNITS,
        [(findings(few_units=True), VIEW)],
        [(BAD, VIEW), (findings(UNSURE, few_units=True), VIEW), (findings(PAST, few_units=True), VIEW)],
    ),
    policy.target_better: (Reason.TARGET_BETTER, [(BAD, VIEW)], [(UNSURE, VIEW), (PAST, VIEW)]),
    policy.mix_shift: (Reason.MIX_SHIFT, [(findings(UNSURE, mix={"country": "FR"}), VIEW)], [(UNSURE, VIEW)]),
    policy.others_suspect: (
        Reason.LABEL_SOURCE_SUSPECT,
        [(findings(UNSURE, all_degraded=True, others_quorum=Quorum.FAILED), VIEW)],
        [(findings(UNSURE, others_quorum=Quorum.FAILED), VIEW), (findings(UNSURE, all_degraded=True), VIEW)],
    ),
    policy.others_waiting: (
        Reason.CONFIRMING,
        [(findings(UNSURE, all_degraded=True, others_quorum=Quorum.WAITING), VIEW)],
        [
            (findings(UNSURE, others_quorum=Quorum.WAITING), VIEW),
            (findings(UNSURE, all_degraded=True, others_quorum=Quorum.WAITING), view(now=6_000)),
        ],
    ),
    policy.all_degraded: (Reason.ALL_DEGRADED, [(findings(UNSURE, all_degraded=True), VIEW)], [(UNSURE, VIEW)]),
    policy.record_better: (Reason.RECORD_BETTER, [(PAST, VIEW)], [(BAD, VIEW), (UNSURE, VIEW)]),
    policy.confirming: (
        Reason.CONFIRMING,
        [(UNSURE, VIEW), (UNSURE, view(now=5_999))],
        [(UNSURE, view(now=6_000)), (UNSURE, view(now=9_000)), (findings(UNSURE, degraded_since=-9_000), VIEW)],
    ),
    policy.not_confirmed: (Reason.NOT_CONFIRMED, [(UNSURE, view(now=6_000)), (UNSURE, VIEW), (BAD, VIEW)], []),
}
ORDER = [
    "incomputable",
    "blind",
    "implausible_labels",
    "coverage_shift",
    "learning",
    "healthy",
    "already_rolled_back",
    "held",
    "pinned",
    "target_unknown",
    "target_unfit",
    "label_source_suspect",
    "quorum_waiting",
    "cooldown",
    "switch_limit",
    "fleet_limit",
    "few_units",
    "target_better",
    "mix_shift",
    "others_suspect",
    "others_waiting",
    "all_degraded",
    "record_better",
    "confirming",
    "not_confirmed",
]

ACTING = (policy.few_units, policy.target_better, policy.record_better)


def named(guard: Guard) -> str:
    return guard.__name__


def test_every_guard_stands_in_the_table_and_has_a_case_on_either_side() -> None:
    assert set(TABLE) == set(GUARDS)
    for guard, (_, fires, silent) in TABLE.items():
        assert fires, named(guard)
        # The last guard always has a reason, so that something is always decided.
        assert bool(silent) is (guard is not GUARDS[-1]), named(guard)


def test_order_of_the_guards() -> None:
    assert [named(guard) for guard in GUARDS] == ORDER


@pytest.mark.parametrize("guard", GUARDS, ids=named)
def test_guard_fires_where_it_should(guard: Guard) -> None:
    reason, fires, _ = TABLE[guard]
    assert [guard(*case) for case in fires] == [reason] * len(fires)


@pytest.mark.parametrize("guard", GUARDS, ids=named)
def test_guard_is_silent_where_it_should_be(guard: Guard) -> None:
    _, _, silent = TABLE[guard]
    assert [guard(*case) for case in silent] == [None] * len(silent)


@pytest.mark.parametrize("guard", GUARDS[:-1], ids=named)
def test_guard_decides_what_the_later_ones_would_have_decided_otherwise(guard: Guard) -> None:
    """In its first case a guard is the first with a reason, so the ruling is its own."""
    reason, fires, _ = TABLE[guard]
    assert decide(*fires[0]).reason is reason


@given(
    st.builds(
        Findings,
        version=st.just("v42"),
        incomputable=st.booleans(),
        learning=st.booleans(),
        blind=st.booleans(),
        coverage_shift=st.booleans(),
        degraded=st.booleans(),
        degraded_since=st.integers(0, 10),
        slice=st.sampled_from([None, {"a": 1}]),
        quarantined=st.booleans(),
        target=st.sampled_from([None, "v41"]),
        any_target=st.booleans(),
        all_unfit=st.booleans(),
        all_degraded=st.booleans(),
        confirmed=st.booleans(),
        on_record=st.booleans(),
        quorum=st.sampled_from(Quorum),
        others_quorum=st.sampled_from(Quorum),
        mix=st.sampled_from([None, {"b": 2}]),
        few_units=st.booleans(),
    ),
    st.builds(
        View,
        now=st.integers(0, 10),
        mode=st.sampled_from(["observe", "approve", "act"]),
        held=st.booleans(),
        pinned=st.booleans(),
        last_switch=st.one_of(st.none(), st.integers(0, 10)),
        cooldown_ms=st.integers(0, 5),
        switches=st.integers(0, 3),
        switches_max=st.integers(0, 3),
        stopped=st.booleans(),
        confirm_within_ms=st.integers(0, 5),
        without_control=st.sampled_from(["propose", "act", "page"]),
        others=st.integers(0, 3),
        others_max=st.integers(1, 3),
        frozen=st.booleans(),
    ),
)
def test_first_reason_wins_and_the_mode_never_changes_it(found: Findings, seen: View) -> None:
    ruling = decide(found, seen)
    reasons = [reason for guard in GUARDS if (reason := guard(found, seen)) is not None]
    assert ruling.reason is reasons[0]
    assert ruling.verdict is ruling.reason.verdict
    for mode in ("observe", "approve", "act"):
        other = decide(found, msgspec.structs.replace(seen, mode=mode))
        assert (other.verdict, other.reason, other.slice) == (ruling.verdict, ruling.reason, ruling.slice)
    if ruling.action is Action.ROLLBACK:
        # Only this one thing is ever done of its own accord, and only under these conditions.
        assert seen.mode == "act"
        assert found.degraded
        assert (found.confirmed and not found.few_units) or (found.on_record and seen.without_control == "act")
        assert found.quorum is Quorum.AGREED
        forbids = [
            seen.held,
            seen.pinned,
            seen.stopped,
            seen.frozen,
            found.all_unfit,
            found.quarantined,
            found.blind,
            found.coverage_shift,
            found.incomputable,
        ]
        assert not any(forbids)
        assert seen.others < seen.others_max
    if ruling.verdict is not Verdict.DEGRADED:
        assert (ruling.to, ruling.slice) == (None, None)


@pytest.mark.parametrize(
    ("mode", "action"), [("act", Action.ROLLBACK), ("approve", Action.PROPOSE), ("observe", Action.OBSERVE)]
)
def test_mode_says_what_a_confirmed_decay_leads_to(mode: str, action: Action) -> None:
    assert decide(BAD, view(mode=mode)) == Ruling(
        Verdict.DEGRADED, Reason.TARGET_BETTER, action, "v41", {"country": "DE"}
    )


@pytest.mark.parametrize(
    ("guard", "mode"),
    list(
        product([g for g in GUARDS if g not in (policy.few_units, policy.target_better, policy.record_better)], MODES)
    ),
)
def test_mode_changes_nothing_but_a_rollback(guard: Guard, mode: str) -> None:
    reason, fires, _ = TABLE[guard]
    found, seen = fires[0]
    ruling = decide(found, msgspec.structs.replace(seen, mode=mode))
    assert ruling.action is ruling.reason.action
    assert ruling.action in (Action.PAGE, Action.NONE)
    assert ruling.to is None
    assert reason.action is not Action.ROLLBACK


@pytest.mark.parametrize(
    ("mode", "without_control", "action"),
    [
        ("act", "propose", Action.PROPOSE),
        ("act", "act", Action.ROLLBACK),
        ("act", "page", Action.PAGE),
        ("approve", "propose", Action.PROPOSE),
        ("approve", "act", Action.PROPOSE),
        ("approve", "page", Action.PAGE),
        ("observe", "propose", Action.OBSERVE),
        ("observe", "act", Action.OBSERVE),
        ("observe", "page", Action.PAGE),
    ],
)
def test_comparison_with_the_past_goes_as_far_as_it_may_and_never_further_than_the_mode(
    mode: str, without_control: str, action: Action
) -> None:
    to = None if action is Action.PAGE else "v41"
    ruling = decide(PAST, view(mode=mode, without_control=without_control))
    assert ruling == Ruling(Verdict.DEGRADED, Reason.RECORD_BETTER, action, to, {"country": "DE"})
    # A target that is better now needs no such cap.
    assert decide(BAD, view(mode=mode, without_control="page")).action is not Action.PAGE


@pytest.mark.parametrize(
    ("mode", "approved", "action"),
    [
        ("act", False, Action.PROPOSE),
        ("approve", False, Action.PROPOSE),
        ("observe", False, Action.OBSERVE),
        ("act", True, Action.ROLLBACK),
    ],
)
def test_comparison_of_few_units_is_proposed_at_most_until_an_operator_approves(
    mode: str, approved: bool, action: Action
) -> None:
    ruling = decide(findings(few_units=True), view(mode=mode, approved=approved, without_control="act"))
    assert ruling == Ruling(Verdict.DEGRADED, Reason.FEW_UNITS, action, "v41", {"country": "DE"})
    assert f"fewer than {UNITS_LEAST:,} units" in ruling.reason.meaning


def test_slice_of_a_ruling_is_the_alarmed_one_and_for_a_mix_shift_the_one_that_explains_it() -> None:
    unsure = findings(UNSURE, mix={"region": "north"})
    assert decide(unsure, VIEW).slice == {"region": "north"}
    assert decide(findings(mix={"region": "north"}), VIEW).slice == {"country": "DE"}
    assert decide(UNSURE, VIEW).slice == {"country": "DE"}
    assert decide(findings(degraded=False), VIEW).slice is None


def test_confirmed_comparison_outranks_a_mix_shift_and_the_decay_of_all() -> None:
    assert decide(findings(mix={"a": 1}, all_degraded=True), VIEW).action is Action.ROLLBACK


def test_unknown_mode_is_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError):
        decide(BAD, view(mode="Act"))
