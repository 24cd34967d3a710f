"""Count how many replicas obey, and note when half of them, most of them and all of them did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from actions.convergence.conduct import KINDS, OBEYS, Conduct

SHARES = (50, 95, 100)
"""Shares of the living replicas, in percent, of which the time is noted."""

_SHOWN = {OBEYS: "serving", "other": "others"}


class Progress(msgspec.Struct, frozen=True):
    """Hold how many living replicas there are, how many do what, and when each share of them obeyed.

    `reached` has milliseconds since the act, by percent; a share that was lost again is not in it.
    """

    live: int = 0
    kinds: dict[str, int] = {}
    reached: dict[int, int] = {}

    @property
    def converged(self) -> bool:
        """Return whether every living replica obeys, and there is one."""
        return 0 < self.live == self.kinds.get(OBEYS, 0)


def advance(before: Progress, conducts: Mapping[str, Conduct], elapsed_ms: int) -> Progress:
    """Return the progress after another look, so many milliseconds after the act.

    >>> progress = advance(Progress(), {"r-1": Conduct("obeys"), "r-2": Conduct("silent")}, 700)
    >>> line_of(advance(progress, {"r-1": Conduct("obeys"), "r-2": Conduct("obeys")}, 1_900))
    'live 2: serving 2; 50 % after 0.7 s, 95 % after 1.9 s, 100 % after 1.9 s'
    """
    live, kinds = len(conducts), Counter(conduct.kind for conduct in conducts.values())
    shares = [share for share in SHARES if live and 100 * kinds[OBEYS] >= share * live]
    reached = {share: before.reached.get(share, elapsed_ms) for share in shares}
    return Progress(live, {kind: kinds[kind] for kind in KINDS if kinds[kind]}, reached)


def line_of(progress: Progress) -> str:
    """Return the progress as one line."""
    kinds = ", ".join(f"{_SHOWN.get(kind, kind)} {count:,}" for kind, count in progress.kinds.items())
    times = ", ".join(f"{share} % after {ms / 1_000:.1f} s" for share, ms in progress.reached.items())
    return f"live {progress.live:,}" + (f": {kinds}" if kinds else "") + (f"; {times}" if times else "")
