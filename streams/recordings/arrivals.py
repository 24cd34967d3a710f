"""The source lines of a recording as they arrive at the join: runs of predictions and feedback, and other events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from streams.join.line_cutter import Arrival
from streams.join.partition import FEEDBACK, KINDS, PREDICTIONS
from streams.join.runs import Run
from streams.recordings.lines import is_packed, read_sound_line, unpacked
from streams.window.decoding import Block, NarrowDecoder, Shape
from unship.codec import OtherLine, decode_line
from unship.events import Feedback, Prediction
from unship.rejections import Rejection
from unship.topics import SOURCES

_SIDES: Final = {Prediction: PREDICTIONS, Feedback: FEEDBACK, Rejection: PREDICTIONS}
"""Of a rejected line the kind is unknown; it is counted among the predictions."""


def line_decoder() -> NarrowDecoder:
    """Return a decoder for the lines of a recording."""
    return NarrowDecoder(KINDS, lambda value: decode_line(value or b""), placed=True)


def arrivals(
    lines: Iterable[bytes],
    decoder: NarrowDecoder | None = None,
    refuse: Callable[[int, Rejection], None] | None = None,
) -> Iterator[Arrival | Run]:
    """Yield what source lines hold, in their order; lines of other kinds are skipped.

    Args:
        lines: The lines.
        decoder: What has learned the events of the lines before.
        refuse: Called with the place among these lines of each that is no event, and with the reason.
    """
    texts = [line.rstrip(b"\r\n") for line in lines]
    decoder = decoder or line_decoder()
    block = decoder.decode(texts)
    shapes = (decoder.shape_of(KINDS[PREDICTIONS]), decoder.shape_of(KINDS[FEEDBACK]))
    if refuse is not None:
        for place in block.odd:
            if isinstance(rejection := block.items[place], Rejection):
                refuse(place, rejection)
    packed = {place: _events_of(texts[place]) for place in block.odd if is_packed(texts[place])}
    for place, events in packed.items():
        # Its place is that of the record, which one event is enough to show.
        block.items[place] = next((event for event in events if not isinstance(event, Rejection)), events[0])
    begin = 0
    for place in (*(place for place in block.odd if block.items[place].__class__ not in _SIDES), len(texts)):
        if place > begin:
            yield _run(block, texts, range(begin, place), shapes, packed)
        if place < len(texts) and not isinstance(block.items[place], OtherLine):
            yield Arrival(block.items[place], texts[place])
        begin = place + 1


def _events_of(line: bytes) -> list[Any]:
    return unpacked(line) or []


def _run(
    block: Block, texts: Sequence[bytes], places: range, shapes: tuple[Shape, Shape], packed: dict[int, list[Any]]
) -> Run:
    begin, end = places.start, places.stop
    items = block.items[begin:end]
    sides = np.fromiter(map(_side_of.__getitem__, map(type, items)), np.int64, len(items))
    odd = [place - begin for place in block.odd if begin <= place < end]
    inner = {}
    for place in packed.keys() & set(places) if packed else ():
        events = packed[place]
        if len(events) > 1 or not isinstance(events[0], Rejection):
            sides[place - begin] = SOURCES.index(read_sound_line(texts[place]).topic)
            inner[place - begin] = Block(events, list(range(len(events))), [b""] * len(events))
    return Run(sides, items, odd, list(texts[begin:end]), shapes, inner)


class _SideOf(dict[type, int]):
    """The side of each type of events, of narrow ones by their tag."""

    def __missing__(self, kind: Any) -> int:
        self[kind] = side = _SIDES[kind] if kind in _SIDES else KINDS.index(kind.__struct_config__.tag)
        return side


_side_of: Final = _SideOf()
