"""Compare what was counted with its limits, and with the exceptions in .ci/ratchet.txt.

A line of that file is a kind, a name and a number, such as `attributes streams/fold/model.py:ModelFold 20`. The
number is what the tree has today, so it may only shrink: one that is higher than the truth is an error, and so is a
line that is no longer needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tree import ROOT

RATCHET = ROOT / ".ci" / "ratchet.txt"

# Each kind with its unit and what to do about too many.
KINDS = {
    "lines": ("lines", "split it by what its parts do"),
    "metaphors": ("metaphors", "write what the field calls it"),
    "modules": ("modules", "make a folder of those that belong together"),
    "attributes": ("attributes", "give a part of this state a class of its own, or freeze it if it is a record"),
    "circle": ("modules in a circle of imports", "move what both ends need into a module below them"),
    "arrow": ("imports against [tool.unship.layers]", "move what is needed down, or pass it in as an argument"),
    "writes": ("writes from outside the class", "give the class a method that makes this change"),
    "private": ("uses of others' private attributes", "use what the class or the library offers by a public name"),
}


class Count(NamedTuple):
    """What was counted under a name, what is allowed there, and where to look."""

    kind: str
    name: str
    number: int
    limit: int = 0
    where: str = ""

    def exceeds(self) -> bool:
        """Return whether the number is over its limit."""
        return self.number > self.limit


def read_ratchet(*kinds: str) -> dict[tuple[str, str], int]:
    """Return the exceptions of the kinds: (kind, name) to number."""
    lines = RATCHET.read_text(encoding="utf-8").splitlines() if RATCHET.exists() else []
    exceptions = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            kind, name, number = line.split()
            assert kind in KINDS, f".ci/ratchet.txt: expected one of {', '.join(KINDS)}, was {kind}"
            exceptions[kind, name] = int(number)
    return {key: number for key, number in exceptions.items() if key[0] in kinds}


def lines_of(exceptions: Mapping[tuple[str, str], int]) -> str:
    """Return the text of the file that holds these exceptions."""
    lines = [f"{kind} {name} {number}" for (kind, name), number in sorted(exceptions.items())]
    return "\n".join(
        ["# Explained in .ci/ratchet.py; written by `make ratchet`, which never lets a kind grow.", *lines, ""]
    )


def complaints(counts: Iterable[Count], ratchet: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Yield one sentence for each number over its limit and each exception that is out of date."""
    by_key = {(count.kind, count.name): count for count in counts}
    for key, count in by_key.items():
        unit, fix = KINDS[count.kind]
        allowed = max(ratchet.get(key, 0), count.limit)
        if count.number > allowed:
            where = f" ({count.where})" if count.where else ""
            yield f"{count.name}: {count.number} {unit} > {allowed}{where}: {fix}"
    for key, allowed in ratchet.items():
        kind, name = key
        found = by_key.get(key, Count(kind, name, 0))
        unit, _ = KINDS[kind]
        if found.number <= found.limit:
            yield f".ci/ratchet.txt: {name} has {found.number} {unit}, within {found.limit}: remove the line"
        elif found.number < allowed:
            yield f".ci/ratchet.txt: {name} is down to {found.number} {unit}: lower {allowed} to that"
