"""Distinguish the records of a trusted controller from others, which anybody may append, and which prove nothing."""

from __future__ import annotations

from typing import Literal, TypeAlias

from streams.recordings.lines import Taken
from unship.signing import KEY_HEADER, Trust, TrustedKey, verify

Signed: TypeAlias = Literal["signed", "altered", "foreign"]


def signed_by_controller(taken: Taken, trust: Trust, payload_type: str) -> Signed:
    """Return whether a trusted controller signed a record.

    Returns:
        `signed`; `altered` where the record names a controller that is trusted and its signature is of other bytes:
        the record was changed after it was signed; or `foreign`: of somebody who does not count.
    """
    headers = tuple((name, value or b"") for name, value in taken.headers)
    if isinstance(verify(taken.value or b"", headers, trust, "controller", payload_type), TrustedKey):
        return "signed"
    named = {value for name, value in headers if name == KEY_HEADER}
    return "altered" if named & {key.id.encode() for key in trust.having("controller")} else "foreign"
