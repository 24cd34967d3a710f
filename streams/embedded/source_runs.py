"""Records of the source topics as runs for the join, and those that were rejected as dead letters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from streams.join.dead_letters import dead_letter
from streams.join.partition import KINDS
from streams.join.runs import Run
from streams.window.decoding import Block, decoded_records, source_decoders
from unship.log.embedded.log import Message, Record
from unship.rejections import RejectCode, Rejection
from unship.topics import SOURCES


class SourceRuns:
    """Decodes what is read of the source topics."""

    def __init__(self) -> None:
        self._decoders = source_decoders()
        self._dead: list[Message] = []
        self.ahead: Counter[str] = Counter()

    def take_dead(self) -> list[Message]:
        """Return the dead letters since the last call."""
        taken, self._dead = self._dead, []
        return taken

    def run(self, records: list[tuple[int, Record]]) -> Run:
        """Return consecutive predictions and feedback as a run."""
        sides = np.array([side for side, _ in records], np.int64)
        items: list[Any] = [None] * len(records)
        odd: list[int] = []
        packed: dict[int, Block] = {}
        for side, (decoder, kind) in enumerate(zip(self._decoders, KINDS, strict=True)):
            places = np.flatnonzero(sides == side).tolist()
            block, inside = decoded_records(decoder, kind, [records[place][1].value for place in places])
            for place, item in zip(places, block.items, strict=True):
                items[place] = item
            for number in block.odd:
                place = places[number]
                odd.append(place)
                if number in inside:
                    packed[place] = inside[number]
                    items[place] = inside[number].items[0]
                self._reject_all(SOURCES[side], records[place][1], inside.get(number, Block([items[place]], [0], ())))
        odd.sort()
        predictions, feedback = (decoder.shape_of(kind) for decoder, kind in zip(self._decoders, KINDS, strict=True))
        offsets = np.array([entry.offset for _, entry in records], np.int64)
        append_ts = np.array([entry.append_ts for _, entry in records], np.int64)
        values = [entry.value or b"" for _, entry in records]
        return Run(sides, items, odd, values, (predictions, feedback), packed, offsets, append_ts)

    def _reject_all(self, topic: str, entry: Record, block: Block) -> None:
        for index in block.odd:
            if isinstance(block.items[index], Rejection):
                self.reject(topic, entry, block.items[index], index)

    def set_back(self, topic: str, entry: Record, count: int, detail: str) -> None:
        """Count records whose append time was set back, and note the first of them as a dead letter."""
        self.ahead[RejectCode.CLOCK_AHEAD] += count
        self.reject(topic, entry, Rejection(RejectCode.CLOCK_AHEAD, detail))

    def reject(self, topic: str, entry: Record, why: Rejection, index: int = 0) -> None:
        """Note the dead letter of a record, or of the event with an index in a packed one."""
        self._dead.append(Message(dead_letter(topic, 0, entry.offset, entry.value, why, index).encoded()))
