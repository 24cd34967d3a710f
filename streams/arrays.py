"""Arrays inside typed records as bytes: what snapshots are saved in and ledger records are digested from.

The format is MessagePack with a schema (the record's own type); nothing in it can run code when it is read.
"""

from typing import Any, TypeVar

import msgspec
import numpy as np

_T = TypeVar("_T")
_DTYPES = frozenset({"<i8", "<f8", "|b1"})


def _from_array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected an array, was {type(value).__name__}")


def _to_array(kind: type, value: Any) -> Any:
    if getattr(kind, "__origin__", kind) is not np.ndarray:
        raise TypeError(f"cannot read a {kind}")
    dtype, shape, data = value
    if dtype not in _DTYPES:
        raise ValueError(f"array of {dtype!r}: expected one of {sorted(_DTYPES)}")
    # A copy, because an array over the bytes of a message is read-only.
    return np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()


_encoder = msgspec.msgpack.Encoder(enc_hook=_from_array)


def pack(value: Any) -> bytes:
    """Return a typed record, arrays and all, as bytes."""
    return _encoder.encode(value)


def unpack(data: bytes, kind: type[_T]) -> _T:
    """Read what `pack` wrote.

    Raises:
        msgspec.DecodeError: if the bytes are cut off or do not fit the type.
        ValueError: if an array does not fit its shape.
    """
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_to_array)
