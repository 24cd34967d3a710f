"""Compute the partition of a key with Java's murmur2, for a whole batch of keys at once.

Predictions and feedback of one id have to be in partitions of the same number, or they are never joined. Clients use
different partitioners, and no broker reports that. So the partition of each id is checked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_M = np.uint32(0x5BD1E995)
_R = np.uint32(24)
_SEED = 0x9747B28C


def partitions_of(keys: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Return the partition, 0 to `count` - 1, of each key, by Java's default partitioner.

    Example:
        >>> partitions_of([b"21", b"foobar", b"a-little-bit-long-string", b""], 1 << 31).tolist()
        [1173551340, 1357151166, 1161502112, 275646681]
    """
    return _places(_murmur2(keys), count)


def partitions_of_ids(ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """Return the partitions of ids, which are their keys.

    Example:
        >>> partitions_of_ids(["21", "éé"], 1 << 31).tolist() == partitions_of([b"21", "éé".encode()], 1 << 31).tolist()
        True
    """
    joined, lengths = "".join(ids), set(map(len, ids))
    data = joined.encode()
    if len(lengths) == 1 and len(data) == len(joined):
        # The usual case: ids made in one way are of one length.
        return _places(_of_one_length(np.frombuffer(data, np.uint8).reshape(len(ids), lengths.pop())), count)
    return partitions_of([each.encode() for each in ids], count)


def partition_of(key: bytes, count: int) -> int:
    """Return the partition of one key.

    Example:
        >>> partition_of(b"fraud", 12)
        10
    """
    return int(partitions_of([key], count)[0])


def _places(hashes: NDArray[np.uint32], count: int) -> NDArray[np.int64]:
    return (hashes & np.uint32(0x7FFFFFFF)).astype(np.int64) % count


def _murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """Return the hashes; keys of one length are hashed together, word by word."""
    lengths = set(map(len, keys))
    if len(lengths) == 1:
        return _of_one_length(np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), lengths.pop()))
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        by_length[len(key)].append(place)
    hashes = np.zeros(len(keys), np.uint32)
    for length, places in by_length.items():
        data = np.frombuffer(b"".join(keys[place] for place in places), np.uint8).reshape(len(places), length)
        hashes[places] = _of_one_length(data)
    return hashes


def _of_one_length(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    count, length = data.shape
    whole = length // 4 * 4
    words = np.ascontiguousarray(data[:, :whole]).view("<u4").reshape(count, -1)
    h = np.full(count, (_SEED ^ length) & 0xFFFFFFFF, np.uint32)
    for i in range(words.shape[1]):
        k = words[:, i] * _M
        k ^= k >> _R
        h = h * _M ^ k * _M
    tail = data[:, whole:].astype(np.uint32)
    for i in reversed(range(tail.shape[1])):
        h ^= tail[:, i] << np.uint32(8 * i)
    if tail.shape[1]:
        h *= _M
    h ^= h >> np.uint32(13)
    h *= _M
    return h ^ (h >> np.uint32(15))
