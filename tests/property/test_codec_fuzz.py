"""A hundred thousand damaged lines give events, markers and rejections, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from unship.codec import OtherLine, decode_line, decode_value, encode_line
from unship.events import EVENT_TYPES, Event
from unship.rejections import DECODING_CODES, RejectCode, Rejection

SECRET = "jane.doe"
SEEDS: list[bytes] = [
    b'{"type":"prediction","id":"jane.doe","model":"fraud","version":"v42","output":1,"score":0.93,'
    b'"ts":1760000000000,"role":"live","slices":{"country":"jane.doe","channel":"app"}}',
    b'{"type":"prediction","id":"p-2","model":"rank","version":"v1","output":["a","jane.doe",3],"row":7,'
    b'"scores":{"jane.doe":0.25,"b":0.75},"latency_ms":12.5,"epoch":[1,20,0],"at":["unship.predictions",0,17,5]}',
    b'{"type":"feedback","id":"jane.doe","truth":true,"ts":"2025-10-09T08:53:20.5+02:00","source":"jane.doe"}',
    '{"type":"feedback","id":"p-ö","engagement":0.5,"model":"fraud"}'.encode(),
    b'{"type":"deployment","model":"fraud","version":"v42","status":"live","previous":"v41",'
    b'"reference":{"zero_one":{"mean":0.1,"n":5000}},"card":{"owner":"jane.doe","data":[{"rows":10}]}}',
    b'{"type":"operator","act":"rollback","model":"fraud","reason":"jane.doe","by":"jane.doe","to":"v41"}',
    b'{"type":"ack","model":"fraud","replica":"r-1","boot":"b","epoch":[1,20,0],"stage":"refused","code":"EXPIRED"}',
    b'{"type":"ledger","batch":[[1,2],[3,4]]}',
    b'{"type":"raw","raw":"amFuZS5kb2U="}',
]
FRAGMENTS: list[bytes] = [
    *(b"NaN", b"-Infinity", b"1e400", b"-1", b"1.0", b"01", b"null", b"true", b"{}", b"[]", b'""', b'"', b"\\", b","),
    *(b"9" * 30, b"9" * 5000, b"9007199254740993", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf"),
    *(b'"\\ud800"', b'"\\u0000"', b"[" * 9, b"[" * 3000, b'{"a":' * 3000, b'"type":"prediction",', b'"type":3,'),
    *(b'"jane.doe"', b'"2025-02-30T00:00:00Z"', b'"x - at `$.ts`"', b'"' + b"x" * 1100 + b'"', b"y" * 66_000),
]


def flip_bytes(line: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        # Mostly ASCII: beyond it nearly every flip ends the same way, as bad UTF-8.
        line[chance.randrange(len(line))] = chance.randrange(chance.choice((128, 128, 128, 256)))


def cut(line: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(line))
    del line[start : start + chance.choice((1, 3, len(line)))]


def splice(line: bytearray, chance: random.Random) -> None:
    other = chance.choice(SEEDS)
    line[chance.randrange(len(line)) :] = other[chance.randrange(len(other)) :]


def insert_fragment(line: bytearray, chance: random.Random) -> None:
    fragment = chance.choice(FRAGMENTS)
    position = chance.randrange(len(line))
    line[position:position] = fragment


def replace_value(line: bytearray, chance: random.Random) -> None:
    """Put a fragment where a value stands, so that the JSON often stays well formed and a field goes wrong."""
    colons = [index for index, byte in enumerate(line) if byte == ord(":")]
    if colons:
        start = chance.choice(colons) + 1
        ends = [end for end in (line.find(b",", start), line.find(b"}", start)) if end >= 0]
        line[start : min(ends, default=len(line))] = chance.choice(FRAGMENTS)


def replace_all(line: bytearray, chance: random.Random) -> None:
    line[:] = bytes(chance.randrange(chance.choice((128, 256))) for _ in range(chance.randrange(60)))


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [
    *(flip_bytes, cut, splice, insert_fragment, replace_value, replace_value, replace_value, replace_all)
]


def damaged_line(chance: random.Random) -> bytes:
    line = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((1, 1, 1, 2))):
        if line:
            chance.choice(DAMAGES)(line, chance)
    return bytes(line)


def check_answer(line: bytes, result: Event | OtherLine | Rejection) -> str:
    """Check what every answer promises and return its name for the count."""
    assert decode_line(line) == result
    if isinstance(result, Rejection):
        assert result.code in DECODING_CODES
        assert SECRET not in result.detail
        return result.code.value
    if isinstance(result, OtherLine):
        return "other"
    assert type(result) in EVENT_TYPES.values()
    assert result.ts is None or type(result.ts) is int
    assert decode_line(encode_line(result)) == result
    return "event"


@pytest.mark.parametrize("seed", range(4))
def test_damaged_lines_are_answered_without_raising_and_the_same_twice(seed: int) -> None:
    chance = random.Random(seed)
    kinds = list(EVENT_TYPES)
    answers: Counter[str] = Counter()
    for number in range(25_000):
        line = damaged_line(chance)
        answers[check_answer(line, decode_line(line))] += 1
        value = decode_value(kinds[number % len(kinds)], line)
        assert isinstance(value, Event | Rejection)
    assert answers.total() == 25_000
    # Damage that never reached one of the answers would prove nothing about it.
    assert set(answers) == {"event", "other", *DECODING_CODES}, answers


def test_seeds_of_the_fuzzing_are_good_lines() -> None:
    assert [line for line in SEEDS if isinstance(decode_line(line), Rejection)] == []
    assert RejectCode.BAD_JSON in DECODING_CODES
