"""Arrays inside records survive being packed, and damaged bytes are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from streams.join.rows import coded
from streams.ledger.encoding import pack, unpack
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.lines import ledger_line, read_ledger_line
from streams.ledger.records import (
    Arm,
    Batch,
    Coded,
    Counted,
    OutcomeRows,
    PairRows,
    Pairs,
    Part,
    PredictionRows,
    UnlabelledRows,
)
from unship.budgets.table import UNITS
from unship.errors import RecordingError


class Held(msgspec.Struct):
    """A record with an array of each kind that is used."""

    ints: NDArray[np.int64]
    floats: NDArray[np.float64]
    flags: NDArray[np.bool_]
    name: str = "x"


shapes = arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
helds = st.builds(
    Held,
    arrays_of.arrays(np.int64, shapes),
    arrays_of.arrays(np.float64, shapes, elements=st.floats(allow_nan=True, allow_infinity=True)),
    arrays_of.arrays(np.bool_, shapes),
    st.text(max_size=3),
)


@settings(max_examples=25)
@given(helds)
def test_packed_arrays_come_back_bit_for_bit(held: Held) -> None:
    back = unpack(pack(held), Held)
    for name in ("ints", "floats", "flags"):
        before, after = getattr(held, name), getattr(back, name)
        assert (after.dtype, after.shape, after.tobytes()) == (before.dtype, before.shape, before.tobytes())
    assert back.name == held.name
    assert pack(back) == pack(held)


def test_unpacked_arrays_can_be_written_to() -> None:
    back = unpack(pack(Held(np.arange(3), np.zeros(2), np.ones(1, np.bool_))), Held)
    back.ints[0], back.floats[0], back.flags[0] = 9, 9.0, False
    assert back.ints.tolist() == [9, 1, 2]


def test_array_that_is_a_view_is_packed_as_what_it_shows() -> None:
    table = np.arange(12, dtype=np.int64).reshape(3, 4)
    held = Held(table[:, 1], np.zeros((4, 2)).T, np.ones(4, np.bool_)[::2])
    back = unpack(pack(held), Held)
    assert back.ints.tolist() == [1, 5, 9]
    assert back.floats.shape == (2, 4)


def test_numpy_scalars_are_packed_as_numbers() -> None:
    assert unpack(pack([np.int64(3), np.float64(0.5), np.bool_(True)]), list[Any]) == [3, 0.5, True]


def test_what_is_neither_record_nor_array_cannot_be_packed() -> None:
    with pytest.raises(TypeError, match="object"):
        pack(object())


GOOD = pack(Held(np.arange(3), np.array([0.5, np.nan]), np.ones(2, np.bool_)))


@given(st.integers(0, len(GOOD) - 1))
def test_bytes_that_are_cut_short_are_refused(length: int) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        unpack(GOOD[:length], Held)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_damaged_bytes_are_refused_or_read_as_a_record_of_the_type(place: int, value: int) -> None:
    data = bytearray(GOOD)
    data[place] = value
    try:
        held = unpack(bytes(data), Held)
    except (msgspec.DecodeError, ValueError):
        return
    assert isinstance(held, Held)
    assert all(isinstance(getattr(held, name), np.ndarray) for name in ("ints", "floats", "flags"))


@pytest.mark.parametrize(
    "array",
    [
        ("<i4", [1], b"\0" * 4),
        ("|O", [1], b"\0" * 8),
        ("<i8", [2], b"\0" * 8),
        ("<i8", [1], b"\0" * 7),
        ("<i8", [1]),
        5,
        None,
        "text",
    ],
)
def test_array_of_another_kind_or_size_is_refused(array: Any) -> None:
    data = msgspec.msgpack.encode({"ints": array, "floats": ("<f8", [0], b""), "flags": ("|b1", [0], b"")})
    with pytest.raises((msgspec.DecodeError, ValueError)):
        unpack(data, Held)


def batch_of(count: int, losses: int, with_pairs: bool) -> Batch:
    rng = np.random.default_rng(count)
    values = rng.random((losses, count))
    values[:, ::3] = np.nan
    columns = [coded([[True, 1, "1", None][i % 4] for i in range(count)])]
    ints, arms = rng.integers(0, 2**53, count), np.zeros(count, np.int64)
    none, classes, unit = np.zeros(0, np.int64), Pairs([(1, 0)], arms), rng.integers(0, UNITS.limit, count)
    answer = Coded(["1"], arms)
    pairs = PairRows(arms, arms, ints, ints, ints, ints, values, columns) if with_pairs else None
    part = Part(
        "m",
        [Arm("v", "live")],
        OutcomeRows(arms, ints, ints, ints, ints, values, columns, Coded(["a"], arms), classes, unit),
        PredictionRows(none, none, none) if with_pairs else PredictionRows(arms, ints, ints, columns, answer),
        pairs,
        UnlabelledRows(arms, ints, ints, values, columns, pairs, answer, unit) if with_pairs else None,
    )
    counted = Counted(Coded(["DUPLICATE"], arms), ints, ints, ints)
    return Batch(0, 0, "ab", (0, 0), (2**40, 7), 5, "cd", [part], counted)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("losses", [1, 2])
@pytest.mark.parametrize("with_pairs", [False, True])
def test_record_as_text_reads_back_to_the_same_bytes(count: int, losses: int, with_pairs: bool) -> None:
    entry = entry_of(batch_of(count, losses, with_pairs))
    assert read_ledger_line(ledger_line(entry.record)).value == entry.value
    back = read_entry(entry.value)
    assert entry_of(back.record).value == entry.value
    assert isinstance(back.record, Batch)
    assert back.record.parts[0].outcomes.losses.shape == (losses, count)


def test_record_without_units_has_no_bytes_for_them_and_one_with_other_numbers_is_refused() -> None:
    batch = batch_of(3, 1, False)

    def with_units(unit: Any) -> Batch:
        rows = msgspec.structs.replace(batch.parts[0].outcomes, unit=unit)
        return msgspec.structs.replace(batch, parts=[msgspec.structs.replace(batch.parts[0], outcomes=rows)])

    assert b"unit" not in entry_of(with_units(msgspec.UNSET)).value
    read_entry(entry_of(with_units(np.array([0, 1, UNITS.limit]))).value)
    for wrong in ([0, 1], [0, 1, -1], [0, 1, UNITS.limit + 1]):
        with pytest.raises(RecordingError):
            read_entry(entry_of(with_units(np.array(wrong))).value)


def fields_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all fields and columns inside a record."""
    if isinstance(value, msgspec.Struct):
        return [found for name in value.__struct_fields__ for found in fields_of(getattr(value, name), (*path, name))]
    if isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
        return fields_of(value[0], (*path, 0))
    return [path]


def changed(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a record with another value at a path."""
    if path:
        step, *rest = path
        if step == 0:
            return [changed(value[0], tuple(rest)), *value[1:]]
        return msgspec.structs.replace(value, **{step: changed(getattr(value, step), tuple(rest))})
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flat[1] += 1
        return value
    return {int: 8, str: "other", tuple: (1, 1), list: [True]}[type(value)]


def test_bytes_of_a_record_cover_every_field() -> None:
    record = batch_of(3, 1, True)
    paths = [path for path in fields_of(record) if "seen" not in path]
    values = {entry_of(changed(record, path)).value for path in paths}
    assert len({*values, entry_of(record).value}) == 1 + len(paths)


@pytest.mark.parametrize("data", [None, b"", b"\xc1", b"\x81", entry_of(batch_of(1, 1, False)).value[:-1]])
def test_value_that_is_no_ledger_record_is_refused(data: bytes | None) -> None:
    with pytest.raises(RecordingError, match="a ledger record cannot be read"):
        read_entry(data)


def test_record_of_the_earlier_text_form_is_refused_with_what_to_do() -> None:
    with pytest.raises(RecordingError, match=r"an earlier version.*docs/how-to/upgrade\.md"):
        read_entry(b'{"type":"ledger","record":{"kind":"tick","clock":1}}')
