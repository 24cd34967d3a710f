"""Distinguish the records of a trusted controller from others, which anybody may append, and which prove nothing."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from streams.recordings.lines import Taken
from unship.events import Epoch
from unship.signing import KEY_HEADER, Trust, TrustedKey, verify

Signed: TypeAlias = Literal["signed", "altered", "foreign"]


def signed_by_controller(taken: Taken, trust: Trust, payload_type: str) -> Signed:
    """Return whether a trusted controller signed a record.

    Returns:
        `signed`; `altered` where the record names a controller that is trusted and its signature is of other bytes:
        the record was changed after it was signed; or `foreign`: of somebody who does not count.
    """
    headers = tuple((name, value or b"") for name, value in taken.headers)
    value, at_ms = taken.value or b"", taken.append_ts
    signer = verify(value, headers, trust, "controller", payload_type, at_ms=at_ms, epoch_of=_epoch_of)
    if isinstance(signer, TrustedKey):
        return "signed"
    if signer == "UNKNOWN_KEY":
        return "foreign"
    named = {value for name, value in headers if name == KEY_HEADER}
    return "altered" if named & {key.id.encode() for key in trust.having("controller")} else "foreign"


class _Numbered(msgspec.Struct):
    """Any record with an epoch."""

    epoch: Epoch


def _epoch_of(value: bytes) -> Epoch | None:
    try:
        return msgspec.json.decode(value, type=_Numbered).epoch
    except (ValueError, RecursionError):
        return None
