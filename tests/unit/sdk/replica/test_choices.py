"""Choices over any units, shares and histories of commands: sticky, alike on every replica, never above one half."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sdk.replica.judging import BOOTED, command, judged
from unship.replica.choice import Loaded, choose
from unship.replica.fence import FenceState, Serving, holdback, pending, switched

UNITS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
SHARES = st.floats(0.001, 0.5)
EPOCHS = st.tuples(*[st.integers(0, 2**53 - 1)] * 3)
COMMANDS = st.lists(st.tuples(st.sampled_from(("v1", "v2")), st.none() | SHARES), min_size=1, max_size=6)


def loaded(share: float, epoch=(0, 7, 0), order: int = 9) -> Loaded:
    return Loaded(Serving("v2", (0, order, 0)), None, Serving("v1", (0, order, 0)), None, share, epoch)


@given(UNITS, SHARES, SHARES, EPOCHS)
def test_raised_share_only_adds_units_and_keeps_their_hash(unit, one, other, epoch):
    few = choose(loaded(min(one, other), epoch), "fraud", unit, None)
    many = choose(loaded(max(one, other), epoch, order=10), "fraud", unit, None)
    assert few.version == "v2" or many.version == "v1"
    assert few.unit_hash == many.unit_hash


@given(UNITS, SHARES, EPOCHS)
def test_upper_half_of_all_hashes_is_always_answered_by_what_serves(unit, share, epoch):
    choice = choose(loaded(share, epoch), "fraud", unit, None)
    assert choice.unit_hash is not None
    assert (choice.role == "holdback") == (choice.version == "v1")
    assert choice.version == "v2" or choice.unit_hash < 2**31


@given(UNITS, SHARES)
def test_id_without_a_unit_chooses_as_a_unit_of_that_name_and_is_no_unit(name, share):
    by_id, by_unit = (choose(loaded(share), "fraud", *names) for names in ((None, name), (name, None)))
    assert by_id.version == by_unit.version
    assert (by_id.unit_hash, by_id.id, by_unit.id) == (None, name, None)


def after(state: FenceState, orders) -> FenceState:
    for order in orders:
        state, _ = judged(state, order)
        target = pending(state)
        state = state if target is None else switched(state, target)
    return state


@given(COMMANDS, st.randoms(use_true_random=False))
def test_replicas_that_read_commands_in_other_orders_deal_units_out_alike(contents, chance):
    orders = [
        command(epoch=(1, number, 0), serve=serve, artifact=None, quarantine=(), **shares)
        for number, (serve, share) in enumerate(contents)
        for shares in [{} if share is None else {"shares": {"v0": share}, "period_epoch": (1, 0, 0)}]
    ]
    shuffled = orders * 2
    chance.shuffle(shuffled)
    one, other = after(BOOTED, orders), after(BOOTED, shuffled)
    assert (one.shares, one.period_epoch, holdback(one)) == (other.shares, other.period_epoch, holdback(other))
    serve, share = contents[-1]
    assert one.serving is not None
    assert (one.serving.version, one.shares) == (serve, {} if share is None else {"v0": share})
