"""Fingerprints of keys: equal keys have equal ones, other keys and other secrets have others."""

from __future__ import annotations

import random

from streams.window.fingerprints import BYTES_MAX, PUBLIC, Fingerprinter, Key

KEYS: list[Key] = [
    *("", "a", "a\0", "a\0\0\0", "\0", "\0\0\0\0", "aaaa", "aaaaa", "ä", "€uro", "\U0001f600", "1", "1:"),
    *("x" * size for size in (7, 8, 9, BYTES_MAX - 1, BYTES_MAX, BYTES_MAX + 1, 4 * BYTES_MAX)),
    *("ä" * size for size in (BYTES_MAX // 2, BYTES_MAX // 2 + 1, BYTES_MAX)),
    *(("a", 1, ""), ("a", 11, ""), ("a", 1, "1"), ("a", 0, "1"), ("a1", 1, ""), ("", 1, "a"), ("ä", 1, "ö")),
    *(("a:1", 2, "b"), ("a", 12, "b"), ("a", 1, "2:b"), ("x" * BYTES_MAX, 3, "price")),
]


def printed(keys: list[Key], secret: bytes = PUBLIC) -> list[tuple[int, int]]:
    prints = Fingerprinter(secret).of(keys)
    return list(zip(prints.high.tolist(), prints.low.tolist(), strict=True))


def test_different_keys_have_different_fingerprints_in_both_halves() -> None:
    high, low = zip(*printed(KEYS), strict=True)
    assert len(set(high)) == len(set(low)) == len(set(KEYS)) == len(KEYS)


def test_fingerprint_of_a_key_does_not_depend_on_the_block_it_is_in() -> None:
    """Neither the longest key of the block, nor whether all are plain ids of one length, makes a difference."""
    alone = {key: printed([key])[0] for key in KEYS}
    rng = random.Random(1)
    for _ in range(200):
        block = rng.choices(KEYS, k=rng.randrange(1, 6))
        assert printed(block) == [alone[key] for key in block]


def test_no_keys_have_no_fingerprints() -> None:
    assert printed([]) == []


def test_another_secret_gives_other_fingerprints() -> None:
    assert not set(printed(KEYS[1:])) & set(printed(KEYS[1:], b"another"))
    assert printed(KEYS, b"another") == printed(KEYS, b"another")
