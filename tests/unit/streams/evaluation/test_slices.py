"""Which slices and sources are watched: first come, first served, up to a cap."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.config.resolved import OTHER
from streams.evaluation.slices import slice_table
from streams.join.rows import coded


def names(values: list[Any], cap: int = 50) -> list[Any]:
    """Return the slices that a column of values is sorted into."""
    table = slice_table(["d"], cap)
    numbers = table.encode(0, coded(values))
    return [table.streams[number].describe() if number >= 0 else None for number in numbers]


def test_values_are_numbered_in_the_order_of_their_appearance() -> None:
    table = slice_table(["a", "b"], 50)
    assert table.encode(0, coded(["x", "y", "x", None])).tolist() == [1, 2, 1, -1]
    assert table.encode(1, coded(["x", "x"])).tolist() == [3, 3]
    assert table.encode(0, coded(["z", "x"])).tolist() == [4, 1]
    assert [stream.describe() for stream in table.streams] == [None, {"a": "x"}, {"a": "y"}, {"b": "x"}, {"a": "z"}]


def test_column_without_any_value_names_no_stream() -> None:
    table = slice_table(["a"], 50)
    assert table.encode(0, coded([None, None])).tolist() == [-1, -1]
    assert len(table.streams) == 1


def test_type_is_part_of_a_value() -> None:
    found = names([True, 1, "1", "true", False, 0, True, 1])
    assert found == [{"d": v} for v in (True, 1, "1", "true", False, 0, True, 1)]
    assert [type(f["d"]) for f in found] == [bool, int, str, str, bool, int, bool, int]
    table = slice_table(["d"], 50)
    assert table.encode(0, coded([True, 1, "1"])).tolist() == [1, 2, 3]
    assert table.encode(0, coded(["1", 1, True])).tolist() == [3, 2, 1]


def test_values_beyond_the_cap_are_other() -> None:
    assert names(["a", "b", "c", "d", "a"], cap=2) == [{"d": "a"}, {"d": "b"}, {"d": OTHER}, {"d": OTHER}, {"d": "a"}]


def test_cap_is_shared_by_all_dimensions_and_each_has_its_own_other() -> None:
    table = slice_table(["a", "b"], 2)
    table.encode(0, coded(["x", "y"]))
    assert table.encode(1, coded(["x", "y"])).tolist() == [3, 3]
    assert table.encode(0, coded(["z"])).tolist() == [4]
    assert [stream.describe() for stream in table.streams[3:]] == [{"b": OTHER}, {"a": OTHER}]
    assert table.named == 2


@given(
    st.lists(st.sampled_from(["a", "b", 1, True, 0, False, "1", None, OTHER]), max_size=40),
    st.integers(1, 6),
    st.integers(1, 7),
)
def test_numbers_do_not_depend_on_how_the_values_are_cut_into_records(values: list[Any], cap: int, cut: int) -> None:
    whole, parts = slice_table(["d"], cap), slice_table(["d"], cap)
    expected = whole.encode(0, coded(values)).tolist()
    found = [
        number for i in range(0, len(values), cut) for number in parts.encode(0, coded(values[i : i + cut])).tolist()
    ]
    assert found == expected
    assert parts == whole
    assert len([s for s in whole.streams[1:] if s.value != OTHER]) <= cap


def test_coded_column_reads_back_as_the_values_it_was_made_of() -> None:
    values = [True, 1, None, "1", False, 0, 1, True]
    column = coded(values)
    back = [None if code < 0 else column.values[code] for code in column.codes]
    assert [(type(v), v) for v in back] == [(type(v), v) for v in values]
