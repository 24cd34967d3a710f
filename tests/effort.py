"""How much of what is drawn by chance the tests draw: a part of it in the gate, all of it with UNSHIP_EFFORT=1.

Every test runs with every effort; what differs is how many seeds and examples each one tries.
"""

import os
from typing import Final

EFFORT: Final = float(os.environ.get("UNSHIP_EFFORT", "0.4"))


def some_of(full: int) -> int:
    """Return how many of so many seeds or examples to try, at least one.

    Example:
        >>> some_of(1)
        1
    """
    return max(1, round(full * EFFORT))
