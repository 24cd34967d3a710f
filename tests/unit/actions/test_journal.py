"""The bytes of a decision are what its typed tree says: each part in its place, what is not there left out."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from actions.evidence_tree import DetectorReport, Evidence
from actions.journal import Provenance, decision_bytes, decode_decision, read_decision
from tests.decisions import CONCURRENT, FULL, decision


def test_parts_stand_in_the_order_in_which_they_are_digested() -> None:
    plain = msgspec.json.decode(decision_bytes(decision(FULL)))
    assert list(plain) == [
        "type", "id", "model", "version", "action", "to", "verdict", "reason", "mode", "epoch", "ts", "slice",
        "outcomes", "evidence", "provenance", "digests",
    ]  # fmt: skip
    assert list(plain["evidence"]) == [
        "detectors", "maturity", "sources", "label_coverage", "alarm", "slices", "comparison", "mix", "unfit", "fleet",
        "operator", "missing", "serving", "deployed", "together", "detectable", "learning", "classes", "lost",
        "implied",
    ]  # fmt: skip
    assert list(plain["evidence"]["comparison"]) == [
        "basis", "target", "role", "evidence", "threshold", "candidate", "target_since_change", "record", "difference",
        "target_degraded",
    ]  # fmt: skip
    assert (list(plain["provenance"]), list(plain["digests"])) == (
        ["ledger", "lines"],
        ["previous", "ledger", "config"],
    )


@pytest.mark.parametrize(
    ("evidence", "plain"),
    [
        (Evidence(), {}),
        (Evidence(comparison=None, slices=[]), {"slices": [], "comparison": None}),
        (Evidence(serving=None, deployed="v9"), {"serving": None, "deployed": "v9"}),
        (Evidence(sources=0), {"sources": 0}),
        (
            Evidence(detectors={"adwin": {"brier": DetectorReport(alarms=0, last_ts=None)}, "decides": "adwin"}),
            {"detectors": {"adwin": {"brier": {"alarms": 0, "last_ts": None}}, "decides": "adwin"}},
        ),
    ],
)
def test_part_without_a_number_is_left_out_and_null_is_kept(evidence: Evidence, plain: dict[str, Any]) -> None:
    assert msgspec.json.decode(decision_bytes(decision(evidence)))["evidence"] == plain


@pytest.mark.parametrize("evidence", [Evidence(), FULL, Evidence(comparison=CONCURRENT), Evidence(sources=3)])
def test_decision_that_is_read_gives_the_same_bytes(evidence: Evidence) -> None:
    line = decision_bytes(decision(evidence))
    assert decode_decision(line) == decision(evidence)
    assert decision_bytes(decode_decision(line)) == line


def test_decision_on_a_live_log_names_offsets_instead_of_lines() -> None:
    rests = Provenance(ledger=(0, 5), predictions={"0": (0, 7)}, feedback={"0": (0, 0)})
    line = decision_bytes(decision(Evidence(), provenance=rests))
    assert b'"provenance":{"ledger":[0,5],"predictions":{"0":[0,7]},"feedback":{"0":[0,0]}}' in line
    assert decode_decision(line).provenance.lines is UNSET


@pytest.mark.parametrize(
    ("there", "instead", "named"),
    [
        (b'"ts":9,"slice"', b'"ts":"noon","slice"', "$.ts"),
        (b'"reason":"NOT_CONFIRMED"', b'"reason":"BORED"', "$.reason"),
        (b'"share":0.5', b'"share":"half"', r"$.evidence.sources[...].share"),
        (b'"ledger":[0,5],', b"", "$.provenance"),
    ],
)
def test_damaged_decision_is_an_error_that_names_the_place(there: bytes, instead: bytes, named: str) -> None:
    line = decision_bytes(decision(FULL))
    assert there in line
    with pytest.raises(ValueError, match=re.escape(named)):
        decode_decision(line.replace(there, instead))


def test_head_is_read_of_a_decision_whose_evidence_has_another_shape() -> None:
    line = decision_bytes(decision(FULL)).replace(b'"share":0.5', b'"share":[]')
    head = read_decision(line)
    assert head is not None
    assert (head.id, head.epoch, head.reason) == ("d-5-0-44e680", (0, 5, 0), "NOT_CONFIRMED")


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"type":"ledger"}', b'{"type":"decision"}'])
def test_record_that_is_no_decision_has_no_head(value: bytes | None) -> None:
    assert read_decision(value) is None
