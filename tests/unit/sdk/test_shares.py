"""Dealing out units: every replica alike, the wanted part, and raised shares that only add."""

from hypothesis import given
from hypothesis import strategies as st

from unship.shares import HASHES, chosen, hash_of, unit_hash

PERIOD = (0, 7, 0)


def holders(share: float, units: int = 20_000) -> set[int]:
    """The units that the old version answers."""
    return {unit for unit in range(units) if chosen(hash_of("m", PERIOD, f"u{unit}"), "v2", {"v1": share}) == "v1"}


def test_share_of_units_is_answered_by_the_other_version() -> None:
    assert 800 < len(holders(0.05)) < 1_200


def test_raised_share_only_adds_units() -> None:
    before, after = holders(0.05), holders(0.3)
    assert before < after
    assert 5_600 < len(after) < 6_400


def test_new_live_period_deals_units_out_anew() -> None:
    first, second = ({u for u in range(5_000) if hash_of("m", (0, at, 0), f"{u}") < 0.1 * HASHES} for at in (7, 9))
    assert len(first & second) < 0.3 * len(first)


def test_models_deal_units_out_apart() -> None:
    assert hash_of("m", PERIOD, "u") != hash_of("n", PERIOD, "u")


@given(st.text(max_size=300))
def test_any_unit_has_a_hash_and_its_highest_bits(unit: str) -> None:
    hashed = hash_of("m", PERIOD, unit)
    assert 0 <= hashed < HASHES
    assert unit_hash(hashed) == hashed // 2**32 < 2**32


@given(st.integers(0, HASHES - 1))
def test_without_shares_what_serves_answers(hashed: int) -> None:
    assert chosen(hashed, "v2", {}) == "v2"
