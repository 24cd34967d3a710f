"""Places of events: those in plain records are offsets, and corners cover a packed record as a whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.fold import uncovered
from streams.ledger.coverage import Coverage
from streams.ledger.places import (
    INDEX_BITS,
    OFFSET_BITS,
    later_of,
    offset_of,
    offsets_of,
    place,
    places_of,
    rising,
    shown,
)
from unship.log.packed import PACKED_EVENTS_MAX

offsets = st.integers(0, 2 ** (OFFSET_BITS - 1) - 1)
indexes = st.integers(0, PACKED_EVENTS_MAX - 1)
few = st.tuples(st.integers(0, 5), st.integers(0, 2))


def array(values):
    return np.array(list(values), np.int64)


def test_every_index_of_a_packed_record_fits_below_the_number_of_a_partition():
    assert 2**INDEX_BITS == PACKED_EVENTS_MAX
    assert place(0, PACKED_EVENTS_MAX - 1) < 1 << uncovered.OFFSET_BITS
    assert INDEX_BITS + OFFSET_BITS == uncovered.OFFSET_BITS


@given(offsets)
def test_place_in_a_plain_record_is_its_offset(offset):
    assert place(offset) == offset == offset_of(offset)
    assert shown(offset) == str(offset)


@given(offsets, indexes)
def test_offset_and_index_come_back_from_a_place(offset, index):
    number = place(offset, index)
    assert 0 <= number < 2**53, "a number that JSON carries"
    assert offset_of(number) == offset
    assert offsets_of(array([number, -1])).tolist() == [offset, -1]
    assert number >> OFFSET_BITS == index


@given(st.lists(st.tuples(offsets, indexes)))
def test_rising_numbers_are_in_the_order_of_the_log_and_give_the_places(events):
    numbers = [rising(*event) for event in events]
    assert sorted(numbers) == [rising(*event) for event in sorted(events)]
    assert places_of(array([*numbers, -1])).tolist() == [*(place(*event) for event in events), -1]


@given(st.lists(st.tuples(offsets, indexes), max_size=5), st.lists(st.tuples(offsets, indexes), max_size=5))
def test_later_of_two_places_is_that_with_the_larger_offset_then_the_larger_index(some, others):
    pairs = list(zip(some, others, strict=False))
    found = later_of(array(place(*one) for one, _ in pairs), array(place(*other) for _, other in pairs))
    assert found.tolist() == [place(*max(pair)) for pair in pairs]


@given(st.lists(few), st.lists(st.tuples(few, few)))
def test_events_of_packed_records_are_covered_as_their_records_are(corners, rows):
    coverage = Coverage()
    for corner in corners:
        coverage.add(corner)
    packed = coverage.fresh(array(place(*p) for p, _ in rows), array(place(*f) for _, f in rows))
    plain = coverage.fresh(array(p[0] for p, _ in rows), array(f[0] for _, f in rows))
    assert packed.tolist() == plain.tolist()
    alone = coverage.fresh(array(place(*p) for p, _ in rows), array(-1 for _ in rows))
    assert alone.tolist() == coverage.fresh(array(p[0] for p, _ in rows), array(-1 for _ in rows)).tolist()
