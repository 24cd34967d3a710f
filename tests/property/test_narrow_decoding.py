"""Blocks decoded by learned types: each value means what the codec makes of the same bytes, whatever came before it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.recordings.arrivals import line_decoder
from streams.window import decoding
from streams.window.cells import Cells
from streams.window.decoding import PACKED, NarrowDecoder, Shape, decoded_records, source_decoders, with_packed
from streams.window.series import SeriesTable, WindowRule
from tests.effort import some_of
from unship.codec import decode_line, decode_value, encode_line
from unship.events import EVENT_TYPES, Feedback, Prediction
from unship.log.packed import decode_values
from unship.rejections import Rejection

KINDS = {Prediction: "prediction", Feedback: "feedback"}
LIMIT = 128

texts = st.sampled_from(
    ["", "a", "b", "m", 'a"b', "a\\b", "\n", "ä", "€", "\U0001f600", "u0", "s0", "type", "x" * LIMIT]
)
numbers = st.sampled_from([0, 1, -1, 2, 1.0, 0.5, -0.0, 0.0, 1.5, 2**53, 2**53 + 1, -(2**53), 2**63, 2**64, 1e300])
constants = st.sampled_from([None, True, False])
wrong = st.sampled_from([{}, [], [1], {"a": 1}, "x" * (LIMIT + 1), "ä" * LIMIT, [[1]], "x" * 1_025, [1] * 1_001])
others = st.recursive(
    constants | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=6,
)
deep = st.integers(5, 10).map(lambda depth: json.loads("[" * depth + "]" * depth))
names = texts.filter(bool)
outputs = numbers | texts | st.booleans() | st.lists(numbers | texts | st.booleans(), max_size=3)
rare = st.sampled_from([{f"k{i}": i for i in range(32)}, {f"k{i}": i for i in range(33)}, {"k" * 64: 1}, {"k" * 65: 1}])
slices = st.dictionaries(texts, texts | st.sampled_from([0, 1, 2, 1.0, True, False, 2**53, None]), max_size=3) | rare
numbered = [0, 1, 946_684_799_999, 946_684_800_000, 5.0, 1_700_000_000_000, -1, 2**53]
times = st.sampled_from([*numbered, "2025-10-09T08:53:20.5+02:00", "2025-10-09", None])
places = st.sampled_from([["unship.predictions", 0, 17, 5], ["t", 0, 1], ["t", 0, 1, -1], None, ["t", 0, 1, 2.0]])
of_prediction: dict[str, st.SearchStrategy[Any]] = {
    "score": st.sampled_from([0, 0.5, 1, 1.0, 1.5, -0.1, None]),
    "scores": st.dictionaries(texts, st.sampled_from([0, 1, 0.5, 2]), max_size=3),
    "role": st.sampled_from(["live", "shadow", "holdback", "none"]),
    "slices": slices,
    "latency_ms": numbers,
    "replica": texts,
    "epoch": st.sampled_from([[1, 2, 3], [1, 2], [1, 2, 3, 4], [1, 2.0, 3], [1, -1, 3]]),
    "artifact": texts,
}
of_feedback: dict[str, st.SearchStrategy[Any]] = {
    "model": names,
    "source": texts,
    "engagement": st.sampled_from([0, 0.5, 1, 1.0, 2]),
}
of_both: dict[str, st.SearchStrategy[Any]] = {
    "ts": times,
    "row": st.sampled_from([0, 1, 2.0, 1_000_000, 1_000_001, True]),
    "target": texts,
    "at": places,
}
unheard = st.sampled_from(["new", "u0", "s0", "ö", 'a"b', "a\\b", "\t", ""])
strangers = st.dictionaries(unheard, others | deep, max_size=2)
no_strangers: st.SearchStrategy[dict[str, Any]] = st.just({})


@st.composite
def events(draw: st.DrawFn, *, known: bool = False) -> tuple[str, dict[str, Any]]:
    """Return a kind, and the fields of an event with some of what is optional, sometimes wrong."""
    kind = draw(st.sampled_from(["prediction", "prediction", "feedback"]))
    fields: dict[str, Any] = {"id": draw(names)}
    optional = of_both | (of_prediction if kind == "prediction" else of_feedback)
    if kind == "prediction":
        fields |= {"model": draw(names), "version": draw(names), "output": draw(outputs)}
    else:
        fields["truth"] = draw(outputs)
    for name in draw(st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True)):
        fields[name] = draw(optional[name])
    if not known:
        fields |= draw(no_strangers | no_strangers | strangers)
        if draw(st.integers(0, 5)) == 0:
            fields[draw(st.sampled_from(sorted(fields)))] = draw(others | wrong)
        if draw(st.integers(0, 9)) == 0:
            del fields[draw(st.sampled_from(sorted(fields)))]
    return kind, fields


@st.composite
def values(draw: st.DrawFn) -> bytes | None:
    """Return the bytes of an event, perhaps with a repeated key, damaged, or none at all."""
    kind, fields = draw(events())
    tag = draw(st.sampled_from([kind, kind, kind, kind, "feedback", "ack", "ledger", 3]))
    members = [json.dumps({name: value}, ensure_ascii=draw(st.booleans()))[1:-1] for name, value in fields.items()]
    if draw(st.integers(0, 4)):
        members.insert(0, json.dumps({"type": tag})[1:-1])
    if members and draw(st.integers(0, 5)) == 0:
        members.append(draw(st.sampled_from(members)))
    if draw(st.integers(0, 9)) == 0:
        _, more = draw(events())
        members += [json.dumps({name: value})[1:-1] for name, value in more.items()]
    value = ("{" + draw(st.sampled_from([",", " ,\n"])).join(members) + "}").encode()
    damage = draw(st.integers(0, 25))
    if damage < 4:
        return _damaged(value, damage, draw(st.integers(0, len(value) - 1)), draw(st.integers(0, 255)))
    if damage == 4:
        return value[:-1] + b" " * 70_000 + b"}"
    if damage == 5:
        return draw(st.sampled_from([None, b"", b"{}", b"null", b"[]", b"  {", value + b"x", value + b" "]))
    return value


def _damaged(value: bytes, how: int, place: int, byte: int) -> bytes:
    if how == 0:
        return value[:place]
    if how == 1:
        return value[:place] + bytes([byte]) + value[place + 1 :]
    if how == 2:
        # Inside a text, where a parser that skips the text does not notice it.
        return value.replace(b'"a"', b'"\xff"')
    return value[:-1] + b',"new":{"x":["\xc3"]}}'


def check(shape: Shape, kind: str, item: Any, expected: Any, *, odd: bool) -> None:
    """Check that an item means what the codec's answer means, types included."""
    if odd or isinstance(expected, Rejection) or expected.__class__ not in KINDS:
        assert odd, (item, expected)
        assert repr(item) == repr(expected)
        return
    assert item.__struct_config__.tag == kind == KINDS[expected.__class__]
    fields = {field.name: field for field in msgspec.structs.fields(EVENT_TYPES[kind])}
    # The slices come by their places; the shape knows their names.
    for name, field in fields.items():
        wanted = getattr(expected, name)
        if name not in shape.fields:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            assert repr(wanted) == repr(default), (name, wanted)
        elif name == "slices":
            found = {each: getattr(item.slices, f"s{place}") for place, each in enumerate(shape.slices)}
            assert _in_order(_without_none(found)) == _in_order(_without_none(wanted))
            assert {each for each, value in wanted.items() if value.__class__ is bool} <= shape.logical
        elif name == "scores":
            assert repr(item.scores) == repr(wanted)
        else:
            assert repr(getattr(item, name)) == repr(wanted), name


def _without_none(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _in_order(found: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((name, repr(value)) for name, value in found.items())


Codec = Callable[[bytes | None], Any]


def check_block(decoder: NarrowDecoder, codec: Codec, kinds: Sequence[str], block: Sequence[bytes | None]) -> int:
    """Check a block; return how many of its items are narrow ones."""
    found = decoder.decode(block)
    assert len(found.items) == len(block)
    assert list(found.odd) == sorted(set(found.odd))
    assert list(found.values) == list(block)
    odd = set(found.odd)
    for place, (item, value) in enumerate(zip(found.items, block, strict=True)):
        if item is PACKED:
            # What it has is decoded by itself.
            assert len(kinds) == 1
            assert (value or b"").startswith(b"[")
            continue
        kind = item.__struct_config__.tag if place not in odd else kinds[0]
        check(decoder.shape_of(kind), kind, item, codec(value), odd=place in odd)
    return len(block) - len(odd)


def decoders_of() -> list[tuple[NarrowDecoder, Codec, tuple[str, ...]]]:
    """Return new decoders of all kinds, each with the codec's function of one value."""
    predictions, feedback = source_decoders()
    return [
        (predictions, lambda value: decode_value("prediction", value), ("prediction",)),
        (feedback, lambda value: decode_value("feedback", value), ("feedback",)),
        (line_decoder(), lambda value: decode_line(value or b""), ("prediction", "feedback")),
    ]


@settings(max_examples=some_of(150))
@given(st.lists(st.lists(values(), max_size=6), min_size=1, max_size=5))
def test_every_value_means_what_the_codec_makes_of_it(blocks: list[list[bytes | None]]) -> None:
    for decoder, codec, kinds in decoders_of():
        for block in blocks:
            check_block(decoder, codec, kinds, block)


@settings(max_examples=some_of(100))
@given(st.lists(events(known=True), min_size=1, max_size=12), st.integers(1, 5))
def test_same_events_in_blocks_of_any_size_are_narrow_once_their_fields_are_known(
    chosen: list[tuple[str, dict[str, Any]]], size: int
) -> None:
    # Types with all the slices that they may have learn no more.
    few = [(kind, fields) for kind, fields in chosen if len(fields.get("slices", {})) <= 3]
    lines = [json.dumps({"type": kind, **fields}).encode() for kind, fields in few]
    good = [line for line in lines if not isinstance(decode_line(line), Rejection)]
    decoder, codec, kinds = decoders_of()[2]
    for begin in range(0, len(good), size):
        check_block(decoder, codec, kinds, good[begin : begin + size])
    plain = [line for line in good if _is_plain(line)]
    assert check_block(decoder, codec, kinds, plain) == len(plain)


def _is_plain(line: bytes) -> bool:
    """Return whether an event has nothing that is always left to the codec."""
    event = decode_line(line)
    named = set(event.slices) if isinstance(event, Prediction) else set()
    written = any(quoted in name for name in named for quoted in '"\\\n')
    return not written and not isinstance(json.loads(line).get("ts"), str)


@settings(max_examples=some_of(100))
@given(
    st.lists(st.lists(values().map(lambda value: value or b""), min_size=1, max_size=4), min_size=1, max_size=5),
    st.data(),
)
def test_events_of_packed_records_mean_what_the_codec_makes_of_them(
    blocks: list[list[bytes]], data: st.DataObject
) -> None:
    """Also of records that are no array of events, or too long; each is the second one of its reader too."""
    for kind, decoder in zip(("prediction", "feedback"), source_decoders(), strict=True):
        for block in blocks:
            opening, closing = data.draw(st.sampled_from([(b"[", b"]"), (b"[ ", b" ]\n"), (b"[", b""), (b" [", b"]")]))
            records = [opening + b",".join(block) + closing, *block, b"[" + block[0] + b"]", b"[]"]
            for _ in range(2):
                found, packed = decoded_records(decoder, kind, records)
                every = with_packed(found, packed)
                expected = [event for record in records for event in decode_values(kind, record)]
                assert len(every.items) == len(expected)
                odd = set(every.odd)
                for place, (item, wanted) in enumerate(zip(every.items, expected, strict=True)):
                    check(decoder.shape_of(kind), kind, item, wanted, odd=place in odd)


def random_value(rng: random.Random) -> bytes:
    """Return the bytes of a valid event of traffic that changes slowly."""
    number = rng.randrange(10_000)
    if rng.random() < 0.4:
        truth: Any = rng.choice([0, 1, True, 0.5, "a"])
        return encode_line(Feedback(id=f"p{number}", truth=truth, source=f"desk-{number % 300}"))
    where: dict[str, Any] = {"country": f"c{number % 400}", "vip": rng.choice([True, False, 1, 0])}
    output: Any = rng.choice([0, 1, True, 0.25, "a", [1, "b"]])
    event = Prediction(
        id=f"p{number}",
        model=f"m{number % 3}",
        version=f"v{number % 70}",
        output=output,
        slices=dict(rng.sample(sorted(where.items()), rng.randrange(3))),
        score=rng.choice([None, 0.5, 1.0]),
        replica=rng.choice([None, f"r{number % 500}"]),
    )
    return encode_line(event)


@pytest.mark.parametrize("seed", range(3))
def test_long_random_blocks_with_damaged_bytes_agree_with_the_codec(seed: int) -> None:
    """More names than are listed, and more than a block may have before the rest of it is parsed widely."""
    rng, narrow, total = random.Random(seed), Counter[int](), 0
    decoders = decoders_of()
    for _ in range(12):
        block: list[bytes | None] = [random_value(rng) for _ in range(rng.choice([1, 30, 300]))]
        for place in range(0, len(block), rng.choice([7, 50, 1_000])):
            value = bytearray(block[place] or b"")
            value[rng.randrange(len(value))] = rng.randrange(rng.choice([128, 256]))
            block[place] = bytes(value)
        total += len(block)
        for number, (decoder, codec, kinds) in enumerate(decoders):
            narrow[number] += check_block(decoder, codec, kinds, block)
    assert narrow[2] > 0.7 * total


def test_types_that_are_learned_no_more_still_tell_true_from_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "LEARNED_MAX", 1)
    decoder, codec, kinds = decoders_of()[0]
    for vip in (1, True):
        event = Prediction(id="p", model="m", version="v", output=1, slices={"vip": vip})
        assert check_block(decoder, codec, kinds, [encode_line(event)]) == 1


def cells_of(decoder: NarrowDecoder, block: Sequence[bytes]) -> list[Any]:
    """Return the values of the slice `vip` by which predictions are coded."""
    rule = WindowRule(10, 1, ("vip",))
    cells = Cells(SeriesTable({}, rule), ("vip",))
    codes = cells.codes(decoder.shape_of("prediction"), decoder.decode(block).items)
    return [cells.key_of(code)[1][0] for code in codes.tolist()]


def test_true_that_comes_after_many_new_names_is_not_taken_for_1() -> None:
    """After many values that are not listed the rest of a block is parsed widely, and learned from all the same."""
    decoder = source_decoders()[0]
    first = Prediction(id="p", model="m", version="v", output=1, slices={"vip": 1})
    decoder.decode([encode_line(first)])
    block = [encode_line(msgspec.structs.replace(first, version=f"v{number}")) for number in range(100)]
    block += [encode_line(msgspec.structs.replace(first, slices={"vip": vip})) for vip in (1, True, 1, False, 0)]
    decoder.decode(block)
    assert [repr(value) for value in cells_of(decoder, block)[-5:]] == ["1", "True", "1", "False", "0"]
    assert decoder.shape_of("prediction").logical == {"vip"}
