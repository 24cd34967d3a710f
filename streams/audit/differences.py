"""The first place where the recording and the computation differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from actions.journal import Decision, decision_bytes, rests_on
from unship.text import printable

_SHOWN = 120


class Difference(msgspec.Struct, frozen=True):
    """The first place where the recording and the computation differ, and both values.

    Without a `path`, `what` is the whole sentence.
    """

    what: str
    path: str
    recorded: str
    computed: str

    def sentence(self) -> str:
        """Return the difference as a sentence."""
        if not self.path:
            return self.what
        return f"{self.what}: {self.path} is {self.recorded} in the recording, {self.computed} when computed again"


class Found(Exception):
    """The first difference, which ends an audit."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(difference.sentence())
        self.difference = difference


def difference(what: str, recorded: Any, computed: Any) -> Difference:
    """Return the first difference of two unequal values made of dicts, lists and scalars.

    >>> difference("decision d-1", {"ts": 5, "to": ["a"]}, {"ts": 5, "to": ["b"]}).sentence()
    'decision d-1: to[0] is a in the recording, b when computed again'
    """
    path, theirs, ours = next(_differences(recorded, computed, ""), ("its bytes", "other bytes", "the same values"))
    return Difference(what, path.lstrip("."), short(theirs), short(ours))


def named(decision: Decision) -> str:
    """Return the name of a computed decision in a difference."""
    return f"decision {decision.id} ({decision.model}, {decision.reason})"


def decision_difference(recorded: bytes, decision: Decision) -> Difference:
    """Return how a recorded decision differs from the computed one, with the cause where it is known."""
    ours = decision_bytes(decision)
    what = named(decision)
    try:
        theirs = msgspec.json.decode(recorded)
    except (ValueError, RecursionError):
        return Difference(what, "its line", short(recorded), short(ours))
    found = difference(what, theirs, msgspec.json.decode(ours))
    digests = theirs.get("digests") if isinstance(theirs, dict) else None
    if isinstance(digests, dict) and digests.get("config") not in (None, decision.digests.config):
        # Another configuration is the cause, whichever field differs first.
        return Difference(what, "digests.config", short(digests["config"]), decision.digests.config)
    if isinstance(digests, dict) and digests.get("ledger") not in (None, decision.digests.ledger):
        where = f"{what}, which rests on {rests_on(decision.provenance)}: a byte among them differs"
        return Difference(where, found.path, found.recorded, found.computed)
    return found


def _differences(recorded: Any, computed: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(recorded, dict) and isinstance(computed, dict):
        for key in [*computed, *(key for key in recorded if key not in computed)]:
            yield from _differences(recorded.get(key, "absent"), computed.get(key, "absent"), f"{path}.{key}")
    elif isinstance(recorded, list | tuple) and isinstance(computed, list | tuple) and len(recorded) == len(computed):
        for i, (theirs, ours) in enumerate(zip(recorded, computed, strict=True)):
            yield from _differences(theirs, ours, f"{path}[{i}]")
    elif recorded != computed or type(recorded) is not type(computed):
        yield path, recorded, computed


def short(value: Any) -> str:
    """Return a value as printable text of limited length."""
    return printable(value.decode(errors="replace") if isinstance(value, bytes) else str(value), _SHOWN)
