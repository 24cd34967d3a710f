"""What may be committed of a partition with holes, compared with Faust's own reckoning."""

import asyncio
from collections import defaultdict
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import Assignment
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from intervaltree import IntervalTree  # type: ignore[import-untyped]

from streams.kafka.faust_transport import _Consumer, _ConsumerThread

PLACE = TP("acks", 0)


def consumer(acked: list[int], gaps: list[tuple[int, int]], committed: int | None) -> Any:
    return SimpleNamespace(
        _acked=defaultdict(list, {PLACE: list(acked)}),
        _acked_index=defaultdict(set, {PLACE: set(acked)}),
        _gap=defaultdict(IntervalTree, {PLACE: IntervalTree.from_tuples(gaps)}),
        _committed_offset={PLACE: committed},
    )


def test_hole_of_millions_of_offsets_is_stepped_over() -> None:
    state = consumer([0, 10_000_000], [(1, 10_000_000)], None)
    assert _Consumer._new_offset(state, PLACE) == 10_000_001
    assert state._acked[PLACE] == []
    assert not state._gap[PLACE]


def test_record_that_is_not_done_holds_back_what_comes_after_it() -> None:
    state = consumer([0, 1, 3], [], None)
    assert _Consumer._new_offset(state, PLACE) == 2
    assert state._acked[PLACE] == [3]


def test_right_behind_the_commit_one_offset_may_be_missing_as_with_faust() -> None:
    """It holds because one agent does the records of a partition in their order."""
    assert _Consumer._new_offset(consumer([3], [], 2), PLACE) == 4
    assert Consumer._new_offset(consumer([3], [], 2), PLACE) == 4
    assert _Consumer._new_offset(consumer([4], [], 2), PLACE) is None


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.sets(st.integers(0, 29)), st.integers(0, 3))
def test_without_holes_it_is_what_faust_commits(present: list[bool], undone: set[int], committed: int) -> None:
    acked = [offset for offset in range(len(present)) if offset not in undone]
    ours, theirs = consumer(acked, [], committed or None), consumer(acked, [], committed or None)
    assert _Consumer._new_offset(ours, PLACE) == Consumer._new_offset(theirs, PLACE)
    assert sorted(ours._acked[PLACE]) == sorted(theirs._acked[PLACE])


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_with_holes_it_is_the_first_offset_that_is_neither_done_nor_a_hole(
    present: list[bool], undone: set[int]
) -> None:
    offsets = [offset for offset, there in enumerate(present) if there]
    gaps = [(before + 1, after) for before, after in pairwise(offsets) if after - before > 1]
    acked = [offset for offset in offsets if offset not in undone]
    found = _Consumer._new_offset(consumer(acked, gaps, None), PLACE)
    passable = set(acked).union(*(range(*gap) for gap in gaps if acked and gap[0] < acked[-1]))
    expected = min(passable, default=None)
    while expected in passable:
        expected += 1
    assert found == expected


class Thread(_ConsumerThread):
    """Has no loop, and the consumer that it is given."""

    time_started = 0.0
    consumer: Any
    reader: Any

    def __init__(self) -> None:
        """Start nothing."""

    def _verify_aiokafka_event_path(self, now: float, tp: TP) -> bool:
        return False

    def _ensure_consumer(self) -> Any:
        return self.reader


def test_partition_that_was_assigned_just_now_and_has_no_position_does_not_end_the_worker() -> None:
    async def look() -> None:
        state = SimpleNamespace(subscription=SimpleNamespace(assignment=Assignment([TopicPartition(*PLACE)])))
        topics = SimpleNamespace(acks_enabled_for=lambda topic: True)
        thread = Thread()
        thread.consumer = SimpleNamespace(app=SimpleNamespace(monitor=object(), topics=topics))
        thread.reader = SimpleNamespace(_fetcher=SimpleNamespace(_subscriptions=state))
        with pytest.raises(AssertionError):
            AIOKafkaConsumerThread.verify_event_path(thread, 1.0, PLACE)
        thread.verify_event_path(1.0, PLACE)

    asyncio.run(look())
