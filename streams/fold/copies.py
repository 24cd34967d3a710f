"""Remember which deployments and acts were taken, so that no copy of one is followed a second time."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.ledger.records import Deployed, Operated, Trusted
from unship.budgets.table import NONCES
from unship.events import At, Deployment, OperatorAct
from unship.signing import SignedBy

KEPT_MS: Final = 86_400_000
"""How much longer than its time a nonce is kept: another partition of the topic may be read so much later."""

NONCES_MAX: Final = NONCES.limit
"""Most nonces: about 2 MB. Only a trusted key adds one, and then the oldest is evicted."""


class Nonces(msgspec.Struct):
    """Hold until when each nonce is kept, by key and nonce; `reached` is the newest append time, in milliseconds."""

    until: dict[str, int] = {}
    reached: int = -1

    def is_repeated(self, event: Deployment | OperatorAct, signed_by: SignedBy) -> bool:
        """Return whether an event with the same nonce was taken before; from now on it was."""
        appended = 0 if event.at is None else event.at[3]
        name = f"{signed_by.key}/{event.nonce}"
        if name in self.until:
            return True
        self.reached = max(self.reached, appended)
        self.until[name] = (appended if event.not_after_ts is None else event.not_after_ts) + KEPT_MS
        while len(self.until) > NONCES_MAX or self.until[next(iter(self.until))] < self.reached:
            del self.until[next(iter(self.until))]
        return False


class Copies(msgspec.Struct):
    """Hold the newest offset that was copied of each log, and the nonces.

    `as_given` is true in a recording of sources: its lines are taken as they are given, whether signed or not.
    """

    offsets: dict[str, int] = {}
    nonces: Nonces = msgspec.field(default_factory=Nonces)
    as_given: bool = False
    trust: Trusted | None = None

    def needs(self, trust: Trusted, *, replaced: bool) -> bool:
        """Return whether the ledger has to hold a `trust.json`.

        Until one was replaced while the monitor ran, or holds a revoked key, what a copier finds is enough.
        """
        known = replaced or self.trust is not None or any(key.revoked is not None for key in trust.keys)
        return known and trust != self.trust

    def take_trust(self, trust: Trusted) -> None:
        """Trust these keys from here on."""
        self.trust = trust

    def is_revoked(self, record: Deployed | Operated) -> bool:
        """Return whether a copy is signed by a key that was not trusted any more when the record was appended."""
        signed_by, trust = record.signed_by, self.trust
        if signed_by is None or trust is None:
            return False
        appended = None if record.event.at is None else record.event.at[3]
        return not any(
            key.id == signed_by.key
            and signed_by.role in key.roles
            and (key.revoked is None or key.revoked.spares(appended))
            for key in trust.keys
        )

    def begin(self, *, as_given: bool) -> None:
        """Begin or go on with a ledger."""
        self.as_given = as_given

    def is_copied(self, record: Deployed | Operated) -> bool:
        """Return whether a record of this place, or a later one of the same log, was copied before."""
        return record.event.at is not None and self.is_read(record.event.at)

    def is_read(self, at: At) -> bool:
        """Return whether the record of a place, or a later one of the same log, was read before; now it was."""
        topic, partition, offset, _ = at
        name = f"{topic}/{partition}"
        if offset <= self.offsets.get(name, -1):
            return True
        self.offsets[name] = offset
        return False

    def is_repeated(self, record: Deployed | Operated) -> bool:
        """Return whether the same signed bytes were taken before, from another place."""
        return record.signed_by is not None and self.nonces.is_repeated(record.event, record.signed_by)

    def is_trusted(self, record: Deployed | Operated, policy: str) -> bool:
        """Return whether a copy is of somebody who may change what serves; an act of somebody else is never copied.

        Args:
            record: The copy.
            policy: `policy.deployments` of its model.
        """
        unsigned = isinstance(record, Deployed) and record.signed_by is None
        return not unsigned or self.as_given or policy != "signed"
