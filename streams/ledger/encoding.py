"""Arrays inside typed records: as bytes in ledgers and snapshots, as JSON lists in recordings.

Both have a schema, the type of the record; no code can run when they are read.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast, get_args

import msgspec
import numpy as np

_T = TypeVar("_T")
_DTYPES = {name: np.dtype(name) for name in ("<i8", "<f8", "|b1")}
_NARROW = {name: np.dtype(name) for name in ("|u1", "<u2", "<u4")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_SPANS = [(name, int(np.iinfo(dtype).max)) for name, dtype in _NARROW.items()]

NARROW_FROM = 256
"""Arrays of so many numbers are written narrowly; for fewer it would take longer than writing more bytes."""

_BITS = "01"
"""Names an array of numbers that are all 0.0 or 1.0."""

_ONE = int(np.array([1.0]).view(np.int64)[0])


def _from_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        size = value.size
        if size >= NARROW_FROM and (narrow := _narrowly(value)) is not None:
            return narrow
        # A ledger record has a dozen arrays, most of them small; `tobytes` is in the order of rows whatever the array.
        return _NAMES.get(value.dtype) or value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected an array, was {type(value).__name__}")


def _narrowly(array: Any) -> tuple[str, Any, bytes, int] | None:
    """Return an array in fewer bytes: integers above the smallest of them, losses of 0 and 1 as bytes."""
    if array.dtype == np.int64:
        least = int(array.min())
        span = int(array.max()) - least
        for name, most in _SPANS:
            if span <= most:
                return name, array.shape, (array - least).astype(_NARROW[name]).tobytes(), least
    elif array.dtype == np.float64:
        bits = np.ascontiguousarray(array).view(np.int64)
        if bool(((bits == 0) | (bits == _ONE)).all()):
            return _BITS, array.shape, (bits != 0).tobytes(), 0
    return None


def _widely(name: str, shape: Any, data: bytes, least: int) -> Any:
    if name == _BITS:
        return np.frombuffer(data, np.bool_).astype(np.float64).reshape(shape)
    dtype = _NARROW.get(name)
    if dtype is None or not 0 <= least + 2**63 < 2**64:
        raise ValueError(f"array of {name!r} above {least}: expected one of {sorted([*_NARROW, _BITS])}")
    return (np.frombuffer(data, dtype).astype(np.int64) + least).reshape(shape)


def _to_view(kind: type, value: Any) -> Any:
    if getattr(kind, "__origin__", kind) is not np.ndarray:
        raise TypeError(f"cannot read a {kind}")
    if len(value) == 4:
        return _widely(*value)
    name, shape, data = value
    dtype = _DTYPES.get(name)
    if dtype is None:
        raise ValueError(f"array of {name!r}: expected one of {sorted(_DTYPES)}")
    array = np.frombuffer(data, dtype)
    return array if len(shape) == 1 and shape[0] == array.size else array.reshape(shape)


def _to_array(kind: type, value: Any) -> Any:
    return _to_view(kind, value).copy()


_encoder = msgspec.msgpack.Encoder(enc_hook=_from_array)


def pack(value: Any) -> bytes:
    """Return a typed record, with its arrays, as bytes."""
    return _encoder.encode(value)


def unpack(data: bytes, kind: type[_T], writable: bool = True) -> _T:
    """Read what `pack` wrote; arrays that need not be `writable` are views of its bytes, which is cheaper.

    Raises:
        msgspec.DecodeError: The bytes are cut off or do not fit the type.
        ValueError: An array does not fit its shape.
    """
    return cast(_T, _decoder(cast(Any, kind), writable).decode(data))


@cache
def _decoder(kind: Any, writable: bool) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_to_array if writable else _to_view)


def _to_list(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # JSON has no NaN: a loss that could not be computed is null.
        return _nulls(value.tolist()) if value.dtype == np.float64 else value.tolist()
    return _from_array(value)


def _nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulls(item) for item in value]
    return None if value != value else value  # noqa: PLR0124


@cache
def _dtype_of(kind: Any) -> Any:
    """Return the type of an array's numbers; cached, because a ledger record has a dozen arrays."""
    if getattr(kind, "__origin__", kind) is not np.ndarray:
        raise TypeError(f"cannot read a {kind}")
    (dtype,) = get_args(get_args(kind)[1])
    return np.dtype(dtype)


def _from_list(kind: Any, value: Any) -> Any:
    dtype = _dtype_of(kind)
    if not isinstance(value, list):
        raise TypeError(f"cannot read a {kind}")
    try:
        read = np.array(value, dtype)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"expected an array of numbers: {error}") from error
    if read.dtype == np.int64 and read.ndim != 1:
        raise ValueError(f"expected one column of integers, was of {read.ndim} dimensions")
    return read


_json_encoder = msgspec.json.Encoder(enc_hook=_to_list)


def to_json(value: Any) -> bytes:
    """Return a typed record as JSON, arrays as lists."""
    return _json_encoder.encode(value)


def from_json(data: bytes, kind: Any) -> Any:
    """Read what `to_json` wrote.

    Raises:
        msgspec.DecodeError: The bytes are no JSON or do not fit the type.
        ValueError: A list is no array of numbers.
    """
    return msgspec.json.decode(data, type=kind, dec_hook=_from_list)
