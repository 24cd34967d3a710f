"""Remember the nonces of signed acts and deployments, so that a second copy of one is not followed."""

from __future__ import annotations

from typing import Final

import msgspec

from unship.events import Deployment, OperatorAct
from unship.signed_events import SignedBy

KEPT_MS: Final = 86_400_000
"""How much longer than its time a nonce is kept: another partition of the topic may be read so much later."""

NONCES_MAX: Final = 10_000
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
