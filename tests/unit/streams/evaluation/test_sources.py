"""Which label source has a place of its own: by the configuration, or by outcomes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config.resolved import OTHER
from streams.evaluation.sources import CANDIDATES_MAX, LABEL_SOURCES_MAX, SEATS_WINDOW, SourceTable, source_table
from streams.join.rows import coded
from streams.ledger.records import Coded

THROWN_AWAY = [f"t{i}" for i in range(LABEL_SOURCES_MAX)]


def encode(table: SourceTable, values: list[str]) -> list[int]:
    numbers: list[int] = table.encode(coded(values)).tolist()
    return numbers


def fed(table: SourceTable, values: list[str], size: int = 50, fixed: bool = False) -> list[int]:
    """Give a table values in records of this size; return the places that got another name."""
    taken = []
    for begin in range(0, len(values), size):
        taken += table.reseat(fixed)
        table.encode(coded(values[begin : begin + size]))
    return taken + table.reseat(fixed)


def drawn(seed: int, count: int, shares: dict[str, float]) -> list[str]:
    return random.Random(seed).choices(list(shares), list(shares.values()), k=count)


# Without a list


def test_eight_sources_have_places_and_the_rest_share_one() -> None:
    table = source_table([])
    assert encode(table, [f"s{i}" for i in range(12)]) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8]
    assert [table.name(place) for place in range(table.places)] == [*(f"s{i}" for i in range(8)), OTHER]
    assert encode(table, ["s11", "s3", "new", OTHER]) == [8, 3, 8, 8]


def test_sources_keep_their_numbers_from_record_to_record() -> None:
    table = source_table([])
    assert encode(table, ["b", "a", "b"]) == [0, 1, 0]
    assert encode(table, ["a", "c"]) == [1, 2]
    assert table.places == 3


def test_record_without_outcomes_has_no_sources() -> None:
    assert source_table([]).encode(Coded([], np.zeros(0, np.int64))).tolist() == []


@pytest.mark.parametrize("place", [0, 3, 7])
def test_source_that_calls_itself_other_takes_no_place(place: int) -> None:
    sources = [f"s{i}" for i in range(7)]
    sources.insert(place, OTHER)
    numbers = encode(source_table([]), [*sources, "eighth", "ninth"])
    assert numbers == [*range(place), 8, *range(place, 7), 7, 8]


def test_names_used_a_few_times_lose_their_places_to_sources_with_many_outcomes() -> None:
    table = source_table([])
    fed(table, THROWN_AWAY * 5)
    taken = fed(table, drawn(1, 2 * SEATS_WINDOW, {"crm": 0.5, "desk": 0.3, "survey": 0.2}))
    assert sorted(table.names[place] for place in taken) == ["crm", "desk", "survey"]
    assert len(encode(table, ["crm", "desk", "survey"])) == 3
    assert table.other not in encode(table, ["crm", "desk", "survey"])


@pytest.mark.parametrize("trickle", [0.005, 0.02, 0.035])
def test_names_that_report_a_little_all_the_time_keep_no_places_from_large_sources(trickle: float) -> None:
    table = source_table([])
    fed(table, THROWN_AWAY)
    shares = {"crm": 0.5, "desk": 0.3, "survey": 0.2} | dict.fromkeys(THROWN_AWAY, trickle)
    fed(table, drawn(2, 3 * SEATS_WINDOW, shares))
    assert {"crm", "desk", "survey"} <= set(table.names)


def test_thousands_of_names_hide_no_large_source() -> None:
    table = source_table([])
    fed(table, THROWN_AWAY)
    rng = random.Random(3)
    values = ["crm" if rng.random() < 0.12 else f"junk-{i}" for i in range(3 * SEATS_WINDOW)]
    fed(table, values)
    assert "crm" in table.names
    assert len(table.candidates) <= CANDIDATES_MAX


def test_nine_sources_of_one_size_do_not_take_places_from_each_other() -> None:
    table = source_table([])
    names = [f"s{i}" for i in range(9)]
    assert fed(table, names + drawn(4, 20 * SEATS_WINDOW, dict.fromkeys(names, 1.0))) == []


def test_places_stay_while_they_are_fixed_and_change_after_another_window() -> None:
    table = source_table([])
    fed(table, THROWN_AWAY * 5)
    values = drawn(5, 2 * SEATS_WINDOW, {"crm": 1.0})
    assert fed(table, values, fixed=True) == []
    assert table.counted == 0
    assert fed(table, values) == [0]


@given(st.integers(0, 2**16), st.integers(1, 400))
def test_places_are_a_function_of_the_order_and_bounded(seed: int, size: int) -> None:
    rng = random.Random(seed)
    values = [f"n{int(rng.paretovariate(0.4)) % 500}" for _ in range(3 * SEATS_WINDOW)]
    tables = [source_table([]), source_table([])]
    assert fed(tables[0], values, size) == fed(tables[1], values, size)
    assert tables[0] == tables[1]
    assert len(tables[0].names) <= LABEL_SOURCES_MAX
    assert len(tables[0].candidates) <= CANDIDATES_MAX


# With a list


def test_listed_sources_have_their_places_and_all_others_are_one_pool() -> None:
    table = source_table(["crm", "desk"])
    assert encode(table, ["x", "desk", "y", OTHER, "crm"]) == [2, 1, 2, 2, 0]
    assert [table.name(place) for place in range(table.places)] == ["crm", "desk", OTHER]
    assert [table.is_pool(place) for place in range(table.places)] == [False, False, True]


def test_listed_sources_keep_their_places_whatever_others_report() -> None:
    table = source_table(["crm"])
    assert fed(table, ["crm", *drawn(6, 3 * SEATS_WINDOW, {"x": 0.9, "y": 0.1})]) == []
    assert table.names == ["crm"]


def test_name_of_which_no_outcome_is_used_takes_no_place() -> None:
    table = source_table([])
    assert table.encode(Coded(["a", "b"], np.array([1, 1]))).tolist() == [0, 0]
    assert table.names == ["b"]
