"""Start in the child of a fork: no thread survives one, and a server that forks may have no place to call `start`."""

from __future__ import annotations

import threading
from typing import Final

from unship.replica.fence import FenceState

NOT_FOLLOWING: Final = "NOT_FOLLOWING"
"""What a child is counted by that could not start to follow commands."""


class ForkedChild:
    """Hold what a fleet in the child of a fork has from its parent, and how far it has come.

    `waits` until it is used or started. `named` if the replica has the name that was given: all children of one
    parent are alike, so only one that starts explicitly may have it, and only where the parent has not.
    """

    def __init__(self, state: FenceState | None, *, name_taken: bool) -> None:
        """Take over from the parent.

        Args:
            state: What the parent obeyed; None if it followed no commands.
            name_taken: Whether the parent goes on under the name that was given.
        """
        self.state = state
        self.name_taken = name_taken
        self.waits = True
        self.named = False
        self.failure = ""
        self._first = threading.Lock()

    def begins(self, *, named: bool = False) -> bool:
        """Return True once, to the caller that has to start; it may be a signal's code, so it waits for nobody.

        Args:
            named: Whether it would start under the name that was given; True is returned only if it may.
        """
        if not self._first.acquire(blocking=False):
            return False
        self.waits = False
        self.named = named and not self.name_taken
        return self.named or not named

    def fail(self, reason: str) -> None:
        """Note why this process does not follow commands."""
        self.failure = f"{NOT_FOLLOWING}: {reason}; call start in the child of the fork, or restart this process"
