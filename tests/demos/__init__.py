"""How each scenario of the demo has to end: said once, for the tests and for `make demo-all`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class End:
    """Name the last decision that is more than a remark: its action and reason (None: there is none), and its slice.

    `also` are reasons of earlier pages, `serves` is what all replicas serve in the end.
    """

    action: str | None
    reason: str | None = None
    slice: Mapping[str, int] | None = None
    also: tuple[str, ...] = ()
    serves: str = "v42"
    holdback: bool = True
    scenario: str = ""


ENDS = {
    "decay": End("rollback", "TARGET_BETTER", serves="v41"),
    "slice": End("rollback", "TARGET_BETTER", {"RAC1P": 2}, serves="v41"),
    "both-bad": End("page", "ALL_DEGRADED"),
    "mix-shift": End("page", "MIX_SHIFT", {"RELP": 17}),
    "no-change": End(None),
    "poison": End("page", "LABEL_SOURCE_SUSPECT"),
    "late-labels": End(None),
    "mix-shift-and-decay": End("rollback", "TARGET_BETTER", also=("MIX_SHIFT",), serves="v41"),
    "decay --no-holdback": End("propose", "RECORD_BETTER", holdback=False, scenario="decay"),
}


def wrong(end: End, decisions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in which ways the decisions are not the expected ones; nothing if they are."""
    acts = [decision for decision in decisions if decision["action"] != "none"]
    known = ("LEARNING", "HEALTHY")
    none = [decision["reason"] for decision in decisions if decision["action"] == "none"]
    remarks = [reason for reason in none if reason not in known]
    found = [f"remark {reason}" for reason in remarks if reason != "CONFIRMING" or end.action is None]
    found += [f"page {act['reason']}" for act in acts[:-1] if act["reason"] not in end.also]
    last = acts[-1] if acts else {"action": None, "reason": None, "slice": None}
    expected = {"action": end.action, "reason": end.reason, "slice": end.slice}
    found += [f"{key} {last[key]}, expected {value}" for key, value in expected.items() if last[key] != value]
    return found
