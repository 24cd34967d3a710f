"""Keep the house in shape: no circle of imports, no import that goes up, and no class changed from outside.

What each rule counts is explained in .ci/imports.py and .ci/writes.py. An exception is a line of .ci/ratchet.txt.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence

from imports import circles, unplaced, upward
from ratchet import Count, complaints, read_ratchet
from tree import ROOT, Module, modules_of, tracked
from writes import outside


def read_layers() -> Mapping[str, Sequence[str]]:
    """Return the order inside each package that has one, from the top down."""
    layers: Mapping[str, Sequence[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["unship"][
        "layers"
    ]
    return layers


def counts(modules: Sequence[Module]) -> list[Count]:
    """Return what is out of shape in the packages."""
    return [*circles(modules), *upward(modules, read_layers()), *outside(modules)]


def main() -> int:
    """Print what is out of shape; return 1 if anything is."""
    modules = modules_of(tracked(".py"))
    ratchet = read_ratchet("circle", "arrow", "writes", "private")
    found = [*unplaced(modules, read_layers()), *complaints(counts(modules), ratchet)]
    print("\n".join(found) or f"{len(modules)} modules import one way, and what a class holds is changed in its module")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
