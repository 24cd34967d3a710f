"""Whatever is done in whatever order, through however many logs, the embedded log equals lists in memory."""

from __future__ import annotations

import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from unship.log.embedded.blocks import BLOCK_RECORDS
from unship.log.embedded.log import (
    COMPACTED,
    EmbeddedLog,
    EmbeddedLogError,
    Fence,
    Message,
    OffsetTrimmed,
    Record,
    WriterFenced,
)

TOPICS = ("predictions", "ledger", "control")
HISTORIES = ("predictions", "ledger")
KEYS = (b"", b"a", b"b", b"c")

topics = st.sampled_from(TOPICS)
messages = st.builds(
    Message,
    st.one_of(st.none(), st.binary(max_size=20)),
    st.sampled_from(KEYS),
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2).map(tuple),
)
batches = st.lists(messages, max_size=6)
which = st.integers(0, 1)


class LogEqualsLists(RuleBasedStateMachine):
    """Two logs on one folder against one dict of lists."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_000
        self.logs = [EmbeddedLog(self.folder.name, now_ms=lambda: self.now, fsync=False) for _ in range(2)]
        self.kept: dict[str, list[Record]] = {topic: [] for topic in TOPICS}
        self.ends = dict.fromkeys(TOPICS, 0)
        self.clocks = dict.fromkeys(TOPICS, 0)
        self.fences: list[Fence] = []
        # The first and the last offset of each block, by topic.
        self.blocks: dict[str, list[tuple[int, int]]] = {topic: [] for topic in TOPICS}

    def teardown(self) -> None:
        if hasattr(self, "logs"):
            for log in self.logs:
                log.close()
            self.folder.cleanup()

    def put(self, topic: str, batch: list[Message]) -> list[int]:
        if not batch:
            return []
        self.clocks[topic] = max(self.clocks[topic], self.now)
        start, self.ends[topic] = self.ends[topic], self.ends[topic] + len(batch)
        self.kept[topic] += [
            Record(offset, self.clocks[topic], each.key, each.value, each.headers)
            for offset, each in enumerate(batch, start)
        ]
        return list(range(start, self.ends[topic]))

    @rule(by=st.integers(-500, 1_000))
    def move_clock(self, by: int) -> None:
        self.now = max(0, self.now + by)

    @rule(log=which, batch=st.dictionaries(topics, batches, max_size=3))
    def append(self, log: int, batch: dict[str, list[Message]]) -> None:
        offsets = self.logs[log].append_many(batch)
        assert offsets == {topic: self.put(topic, each) for topic, each in batch.items()}

    @rule(log=which, topic=st.sampled_from(HISTORIES), count=st.integers(1, 2 * BLOCK_RECORDS))
    def append_many_alike(self, log: int, topic: str, count: int) -> None:
        batch = [Message(b"%d" % number, b"k", (("h", b""),)) for number in range(count)]
        assert self.logs[log].append(topic, batch) == self.put(topic, batch)

    @rule(log=which, topic=st.sampled_from(HISTORIES), data=st.data())
    def pack(self, log: int, topic: str, data: Any) -> None:
        before = data.draw(st.integers(0, self.ends[topic] + 2))
        blocks, packed = self.blocks[topic], 0
        low = blocks[-1][1] + 1 if blocks else self.kept[topic][0].offset if self.kept[topic] else 0
        while min(before, self.ends[topic] - 1) - low >= BLOCK_RECORDS:
            blocks.append((low, low + BLOCK_RECORDS - 1))
            low, packed = low + BLOCK_RECORDS, packed + BLOCK_RECORDS
        assert self.logs[log].pack(topic, before) == packed

    @rule(log=which)
    def shrink(self, log: int) -> None:
        self.logs[log].shrink()

    @rule(log=which, topic=topics, data=st.data())
    def find_a_time(self, log: int, topic: str, data: Any) -> None:
        at = data.draw(st.integers(0, self.now + 10))
        older = sum(1 for record in self.kept[topic] if record.append_ts < at)
        first = self.kept[topic][0].offset if self.kept[topic] else 0
        found = self.logs[log].first_since(topic, at)
        if topic in HISTORIES:
            inside = [begin for begin, end in self.blocks[topic] if begin <= first + older <= end]
            assert found == (inside[0] if inside else first + older)

    @rule(log=which)
    def acquire(self, log: int) -> None:
        self.fences.append(self.logs[log].acquire("monitor"))

    @rule(log=which, data=st.data(), batch=batches)
    def append_fenced(self, log: int, data: Any, batch: list[Message]) -> None:
        if not self.fences:
            return
        fence = data.draw(st.sampled_from(self.fences))
        if fence is self.fences[-1]:
            assert self.logs[log].append("control", batch, fence=fence) == self.put("control", batch)
            return
        try:
            self.logs[log].append("control", batch, fence=fence)
        except WriterFenced:
            return
        raise AssertionError(f"{fence} was let through after {self.fences[-1]}")

    @rule(log=which, topic=topics, data=st.data(), limit=st.integers(1, 10), max_bytes=st.integers(1, 60))
    def read(self, log: int, topic: str, data: Any, limit: int, max_bytes: int) -> None:
        offset = data.draw(st.integers(0, self.ends[topic] + 2))
        kept = self.kept[topic]
        try:
            got = self.logs[log].read(topic, offset, limit=limit, max_bytes=max_bytes)
        except OffsetTrimmed:
            assert topic not in COMPACTED
            assert kept[0].offset > offset
            return
        except EmbeddedLogError:
            assert offset > self.ends[topic]
            return
        expected: list[Record] = []
        size = 0
        for record in [each for each in kept if each.offset >= offset][:limit]:
            size += len(record.value or b"") + len(record.key or b"")
            if expected and size > max_bytes:
                break
            expected.append(record)
        assert got == expected
        assert topic in COMPACTED or not got or got[0].offset == offset

    @rule(log=which, topic=topics, data=st.data())
    def wait(self, log: int, topic: str, data: Any) -> None:
        position = data.draw(st.integers(0, self.ends[topic]))
        assert self.logs[log].wait({topic: position}, 0) == ((topic,) if position < self.ends[topic] else ())

    @rule(log=which, topic=st.sampled_from(HISTORIES), data=st.data())
    def trim(self, log: int, topic: str, data: Any) -> None:
        before = data.draw(st.integers(0, self.ends[topic] + 2))
        bound = min(before, self.ends[topic] - 1)
        # A block with a record that stays, stays.
        bound = next((begin for begin, end in self.blocks[topic] if begin <= bound <= end), bound)
        self.blocks[topic] = [(begin, end) for begin, end in self.blocks[topic] if end >= bound]
        kept = [each for each in self.kept[topic] if each.offset >= bound]
        assert self.logs[log].trim(topic, before) == len(self.kept[topic]) - len(kept)
        self.kept[topic] = kept

    @rule(log=which)
    def compact(self, log: int) -> None:
        newest = {each.key: each.offset for each in self.kept["control"]}
        kept = [each for each in self.kept["control"] if newest[each.key] == each.offset]
        assert self.logs[log].compact("control") == len(self.kept["control"]) - len(kept)
        self.kept["control"] = kept

    @rule(log=which)
    def reopen(self, log: int) -> None:
        self.logs[log].close()
        self.logs[log] = EmbeddedLog(self.folder.name, now_ms=lambda: self.now, fsync=False)

    @invariant()
    def bounds_and_newest_agree(self) -> None:
        if not hasattr(self, "logs"):
            return
        for log in self.logs:
            ends = log.ends()
            assert {topic: ends[topic] for topic in TOPICS} == self.ends
            for topic in TOPICS:
                assert log.first(topic) == (self.kept[topic][0].offset if self.kept[topic] else 0)
            assert log.latest("control") == {each.key: each for each in self.kept["control"]}


TestLogEqualsLists = LogEqualsLists.TestCase
TestLogEqualsLists.settings = settings(max_examples=40, stateful_step_count=30)
