"""Say which decisions a recording must lead to, and compare a monitor's decisions with that.

What is checked is what the contract promises to readers of `decisions`; the shape of the evidence is the monitor's own
affair, except that a page which names something must name it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

ACTS = frozenset({"rollback", "propose", "observe"})
ACTIONS = ACTS | {"page", "none"}
VERDICTS = frozenset({"HEALTHY", "DEGRADED", "INCONCLUSIVE", "ERROR"})


@dataclass(frozen=True, slots=True)
class Expect:
    """Say which decisions a recording may and must lead to.

    `act` is the one act that must come, exactly once, between `not_before_ms` and `not_after_ms`, on `version` to `to`
    and with `slice`; None forbids every act. `pages` are the reasons a page may have; `page_required` wants at least
    one of them in the same span, whose evidence names all of `names`. Before `calm_until_ms` nobody may call a version
    DEGRADED (None: never at all; 0: not looked at).
    """

    act: str | None = None
    version: str = "v42"
    to: str = "v41"
    slice: dict[str, str] | None = None
    not_before_ms: int = 0
    not_after_ms: int = 0
    pages: tuple[str, ...] = ()
    page_required: bool = False
    names: tuple[str, ...] = ()
    calm_until_ms: int | None = None


def violations(expect: Expect, decisions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each way in which the decisions are not the expected ones; none if they are right."""
    found: list[str] = []
    decided = list(decisions)
    last = 0
    for line in decided:
        if line["type"] != "decision" or line["action"] not in ACTIONS or line["verdict"] not in VERDICTS:
            found.append(f"not a decision of the contract: {brief(line)}")
        if line["ts"] < last:
            found.append(f"time runs backwards: {line['ts']} after {last}")
        last = line["ts"]
        if line["verdict"] == "DEGRADED" and (expect.calm_until_ms is None or line["ts"] < expect.calm_until_ms):
            found.append(f"called degraded while nothing is wrong: {brief(line)}")
    acts = [line for line in decided if line["action"] in ACTS]
    pages = [line for line in decided if line["action"] == "page"]
    return found + _wrong_acts(expect, acts) + _wrong_pages(expect, pages)


def _wrong_acts(expect: Expect, acts: list[Mapping[str, Any]]) -> list[str]:
    if expect.act is None:
        return [f"forbidden act: {brief(line)}" for line in acts]
    if len(acts) != 1:
        return [f"expected exactly one {expect.act}, was {len(acts)}: {[brief(line) for line in acts]}"]
    wanted = {
        "action": expect.act,
        "version": expect.version,
        "to": expect.to,
        "slice": expect.slice,
        "verdict": "DEGRADED",
    }
    found = [
        f"{key} of the act: expected {value!r}, was {acts[0][key]!r}"
        for key, value in wanted.items()
        if acts[0][key] != value
    ]
    return found + _wrong_time(expect, acts[0])


def _wrong_pages(expect: Expect, pages: list[Mapping[str, Any]]) -> list[str]:
    found = [f"forbidden page: {brief(line)}" for line in pages if line["reason"] not in expect.pages]
    allowed = [line for line in pages if line["reason"] in expect.pages]
    if not expect.page_required:
        return found
    if not allowed:
        return [*found, f"expected a page for one of {expect.pages}, was none"]
    text = orjson.dumps(allowed[0]["evidence"]).decode()
    found += [f"the page does not name {name!r}: {text[:300]}" for name in expect.names if f'"{name}"' not in text]
    return found + _wrong_time(expect, allowed[0])


def _wrong_time(expect: Expect, line: Mapping[str, Any]) -> list[str]:
    if expect.not_before_ms <= line["ts"] <= expect.not_after_ms:
        return []
    return [f"{line['action']} at {line['ts']}, expected from {expect.not_before_ms} to {expect.not_after_ms}"]


def brief(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a decision that says what was decided."""
    return {
        key: line[key] for key in ("ts", "model", "version", "action", "to", "verdict", "reason", "slice", "outcomes")
    }
