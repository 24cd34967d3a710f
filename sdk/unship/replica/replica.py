"""Describe a replica that obeys: its name, the keys it trusts, how it loads a version and swaps it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from unship.events import Epoch
from unship.replica.choice import Loaded
from unship.replica.fence import Identity
from unship.signing import Trust

Confirmed: TypeAlias = Literal["SWITCHED", "FAILED", "NOT_WANTED"]
"""Outcome of a confirmation: the version serves; its load is recorded as failed; no such switch is pending."""

LATER: Final = object()
"""Returned by a load whose switch happens elsewhere and is confirmed by `Fleet.confirm`: `staged` until then."""


class TrustSource(Protocol):
    """Give the trusted keys, which may be replaced at any time (`unship.keys.TrustFile`)."""

    trust: Trust
    problem: str

    def reload(self) -> bool:
        """Look for other keys; return whether there are, and otherwise set `problem` if they cannot be read."""


class Replica(Struct, frozen=True, eq=False):
    """Describe a replica that obeys.

    Attributes:
        who: The replica and its boot, named in acks.
        trust: The file of the keys trusted, which may be replaced at any time.
        load: Loads a version, on a thread for loads; raising keeps the old one. None: there is nothing to load.
            Where it returns `LATER`, the old version counts as serving until the switch is confirmed.
        load_timeout_s: How long a load may take, in seconds; one that takes longer counts as failed.
        artifacts: The artifacts that may serve, by version; None allows all.
        asked: Returns whether the program asks for choices; before it does, nothing is loaded to answer a share.
        swap: Answers requests by what is loaded from now on, and labels predictions with it.
        beat_ms: How often the monitor is expected to publish, in milliseconds.
        now_ms: The clock, in milliseconds since the epoch: stamps acks, and decides when commands expire.
    """

    who: Identity
    trust: TrustSource
    load: Callable[[str], object] | None
    load_timeout_s: float
    artifacts: Mapping[str, str] | None
    asked: Callable[[], bool]
    swap: Callable[[Loaded], None]
    beat_ms: int
    now_ms: Callable[[], int]


class Confirmation(Struct, frozen=True):
    """Report how a switch ended whose load returned `LATER`."""

    version: str
    epoch: Epoch
    ok: bool
    detail: str
