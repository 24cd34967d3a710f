"""Write .ci/ratchet.txt again from what the tree has now: after an exception became smaller, went away or moved.

The number of a kind may not grow in sum. Where it would, nothing is written.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping

import metaphors
import sizes
import structure
from ratchet import KINDS, RATCHET, lines_of, read_ratchet
from tree import modules_of, tracked


def growth(before: Mapping[tuple[str, str], int], now: Mapping[tuple[str, str], int]) -> list[str]:
    """Return the kinds of which there is more than before, each with both sums.

    >>> growth({("lines", "a.py"): 700}, {("lines", "b/a.py"): 690, ("circle", "c.py"): 2})
    ['circle: 2 > 0']
    """
    was, becomes = Counter[str](), Counter[str]()
    for sums, exceptions in ((was, before), (becomes, now)):
        for (kind, _), number in exceptions.items():
            sums[kind] += number
    return [f"{kind}: {becomes[kind]} > {was[kind]}" for kind in KINDS if becomes[kind] > was[kind]]


def main() -> int:
    """Write the exceptions; return 1 if there would be more of a kind than before."""
    paths = tracked(".py")
    counted = (*sizes.counts(paths), *structure.counts(modules_of(paths)), *metaphors.counts(tracked(".py", ".md")))
    now = {(count.kind, count.name): count.number for count in counted if count.exceeds()}
    grown = growth(read_ratchet(*KINDS), now)
    if grown:
        print(
            f"not written, there is more than before: {', '.join(grown)}: `make sizes structure words` names the places"
        )
        return 1
    RATCHET.write_text(lines_of(now), encoding="utf-8")
    print(f"{len(now)} exceptions in .ci/ratchet.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
