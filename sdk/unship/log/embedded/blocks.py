"""Hold many records of a topic in one compressed row, once nobody waits for them.

The records of a ledger are alike: one at a time takes ten times the space that it takes among its neighbours. A block
is a row like the others, at the offset of its last record, so that the row at or after an offset is the one that
holds it. Its key is the offset of its first record, and its headers are a byte that begins no headers.

Blocks are the oldest rows of a topic, without a gap, and the newest record is never in one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from unship.log.embedded.file import EmbeddedLogError

Row: TypeAlias = tuple[int, int, bytes | None, bytes | None, bytes | None]
"""Offset, append time, key, value and headers, as a table holds them."""

MARK: Final = b"\xc1"
"""MessagePack uses every byte but this one, so no headers are these."""

BLOCK_RECORDS: Final = 256
BLOCK_BYTES: Final = 256 << 10
"""Records and bytes of one block. A reader in its middle unpacks the whole of it: about a millisecond."""

UNPACKED_BYTES_MAX: Final = 9 << 20
"""More than the largest record: a block that unpacks to more is no block of this program."""

_LEVEL: Final = 6
_ENCODE: Final = msgspec.msgpack.Encoder()
_DECODE: Final = msgspec.msgpack.Decoder(list[tuple[int, int, bytes | None, bytes | None, bytes | None]])


def is_block(row: Row) -> bool:
    """Return whether a row holds more than a record."""
    return row[4] == MARK


def first_of(row: Row) -> int:
    """Return the offset of the first record that a row holds."""
    # Of a damaged one it is a number that does not fit the last offset.
    return int.from_bytes((row[2] or b"")[:8], "big") if is_block(row) else row[0]


def block_of(rows: Sequence[Row]) -> Row:
    """Return the row that holds consecutive records.

    Example:
        >>> rows = [(7, 1_000, b"k", b"v" * 100, None), (8, 1_001, None, None, None)]
        >>> block = block_of(rows)
        >>> block[0], first_of(block), list(unpacked([block], 8)) == rows[1:]
        (8, 7, True)
    """
    newest = rows[-1]
    return newest[0], newest[1], rows[0][0].to_bytes(8, "big"), zlib.compress(_ENCODE.encode(rows), _LEVEL), MARK


def within_limits(rows: Iterable[Row]) -> list[Row]:
    """Return as many of some records as fit into a block, one at least."""
    taken: list[Row] = []
    size = 0
    for row in rows:
        size += len(row[3] or b"") + len(row[2] or b"") + len(row[4] or b"")
        if taken and (size > BLOCK_BYTES or len(taken) == BLOCK_RECORDS):
            break
        taken.append(row)
    return taken


def unpacked(rows: Iterable[Row], offset: int = 0) -> Iterator[Row]:
    """Yield the records from an offset on that rows hold.

    Raises:
        EmbeddedLogError: A block is damaged.
    """
    for row in rows:
        if is_block(row):
            yield from (each for each in _records(row) if each[0] >= offset)
        else:
            yield row


def _records(row: Row) -> list[Row]:
    first, count = first_of(row), row[0] + 1 - first_of(row)
    records: list[Row] = []
    if 0 < count <= BLOCK_RECORDS:
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(row[3] or b"", UNPACKED_BYTES_MAX)
            # As many as there should be, so that no more than that are made of a few bytes.
            if inflater.eof and data.startswith(_ENCODE.encode([None] * count)[:-count]):
                records = _DECODE.decode(data)
        except (zlib.error, msgspec.MsgspecError):
            records = []
    if not records or [each[0] for each in records] != list(range(first, row[0] + 1)):
        raise EmbeddedLogError(
            f"the records {first} to {row[0]} of a topic are damaged: their block cannot be unpacked; bring the folder "
            "back from a copy"
        )
    return records
