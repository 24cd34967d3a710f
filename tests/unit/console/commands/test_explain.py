"""The page on a decision: what the evidence has stands on it, what it lacks does not."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec import UNSET

from actions.evidence_tree import (
    AlarmReport,
    Evidence,
    HoldbackReport,
    Mean,
    MeanIfAny,
    OperatorReport,
    SliceReport,
    SourceReport,
    Without,
)
from actions.journal import decision_bytes
from actions.reasons import Action, Reason, Verdict
from console.cli import main
from console.commands.explain import page
from console.sentences import sentence
from tests.decisions import CONCURRENT, FULL, MEAN, decision

WITHOUT = Without(20.0, 0.2, 1e6, True)


def explained(folder: Path, content: bytes, *arguments: str) -> Result:
    path = folder / "decisions.ndjson"
    path.write_bytes(content)
    return CliRunner().invoke(main, [*arguments[:-1], "explain", arguments[-1], "--in", str(path)])


@pytest.mark.parametrize(
    "line",
    [
        "  missing   380 more outcomes are needed, expected by 1970-01-01T00:01:00+00:00 at this rate",
        "  within    600 outcomes: a rise of 4 in 100 or more would have shown",
        "            of a day (2,400 outcomes at this rate) a rise of 32 in 1,000 shows",
        "  why       adwin on zero_one, new=True: evidence without a number",
        "            before: unknown, from learning",
        "  reference the deployment's for zero_one is ignored: 0.2500 (n=40) is worse than the version's own first "
        "outcomes",
        "  promise   not promised",
        "            second opinion of adwin on zero_one: 0 alarms",
        "  would going back help?  by the past, not shown: evidence 0.095 of 1 (no concurrent holdback or shadow)",
        "            that is: 0.1200 (n=1500); the judged version: 0.2500 (n=40)",
        "  source    crm (listed): 50 % of the labels; the rise does not show without it (-0.010)",
        "            the other version's lead does not show without it (nothing left)",
        "            the other version's own rise shows without it (+0.010)",
        "  sources   crm and __other__ together: the rise does not show without them (-0.010)",
        "  slice     n=1.0: evidence 3, singled out; 0.2500 (n=40), before 0.2500 (n=40)",
        "  requests  more with new True than before",
        "  labels    90.0 % of the newest judged answers have one (maturity 10m)",
        "  operator  approve by me: why",
        "  proof     source lines 0..70, ledger records 0..5",
    ],
)
def test_each_part_of_the_evidence_has_its_line(line: str) -> None:
    assert line in page(decision(FULL)).split("\n")


@pytest.mark.parametrize(
    ("evidence", "line"),
    [
        (Evidence(sources=0), "  sources   none: this loss needs no label"),
        (Evidence(sources=2), "  sources   2"),
        (
            Evidence(sources={"crm": SourceReport(1.0, WITHOUT)}),
            "  sources   by the names that they declare; labels.sources lists none",
        ),
        (
            Evidence(sources={"__other__": SourceReport(0.5, WITHOUT, False)}),
            "  source    __other__ (not listed: from 50 % of the labels on nothing is acted upon): 50 % of the labels; "
            "the rise shows without it (+0.200)",
        ),
        (
            Evidence(comparison=msgspec.structs.replace(CONCURRENT, expected_ts=60_000)),
            "            expected by 1970-01-01T00:01:00+00:00, if both go on like this",
        ),
        (
            Evidence(comparison=msgspec.structs.replace(CONCURRENT, expected_ts=None)),
            "            when that is enough is not known yet",
        ),
        (
            Evidence(comparison=CONCURRENT),
            "            v1 at the same time: unknown, the judged version: 0.2500 (n=40)",
        ),
        (Evidence(missing="--version V"), "  missing   --version V"),
        (
            Evidence(holdback=HoldbackReport("v1", 0.3, 60_000, raised_from=0.05)),
            "  holdback  v1 answers 30 %, raised from 5 %, until 1970-01-01T00:01:00+00:00",
        ),
        (Evidence(holdback=HoldbackReport("v1", 0.05, None)), "  holdback  v1 answers 5 %"),
        (
            Evidence(holdback=HoldbackReport("v1", 0.05, None, proposed=0.3)),
            "            30 % is proposed: unship ctl approve or reject",
        ),
        (
            Evidence(holdback=HoldbackReport("v1", 0.05, None, expected_ts=60_000)),
            "            with this share it shows by 1970-01-01T00:01:00+00:00 whether it is better",
        ),
        (
            Evidence(holdback=HoldbackReport("v1", 0.05, None, expected_ts=None)),
            "            when that shows whether it is better is not known yet",
        ),
    ],
)
def test_part_that_is_alone_has_its_line(evidence: Evidence, line: str) -> None:
    assert line in page(decision(evidence)).split("\n")


def test_decision_without_evidence_has_a_page_without_gaps() -> None:
    text = page(
        decision(Evidence(missing="x"), reason=Reason.OPERATOR_REFUSED, verdict=Verdict.INCONCLUSIVE, slice=None)
    )
    assert "None" not in text
    assert "unknown" not in text
    assert "UNSET" not in text


def test_names_on_the_page_cannot_steer_a_terminal() -> None:
    bad = "x" + chr(27) + "[2J"
    evidence = msgspec.structs.replace(FULL, operator=OperatorReport("pin", bad, bad, False), unfit=UNSET)
    assert chr(27) not in page(decision(evidence, model=bad, version=bad, id=bad, mode=bad, slice={bad: bad}))


def test_sentence_has_one_denominator_and_names_a_slice_that_is_no_worse_than_the_rest() -> None:
    now, usual = Mean(0.31, 40.0), Mean(0.059, 9.0)
    alarm = AlarmReport("e_detector", "zero_one", {"new": True}, 9, 5, 9.0, 8.0, now, usual, "previous")
    concurrent = msgspec.structs.replace(CONCURRENT, target_since_change=MeanIfAny(0.031, 9.0))
    for singled_out, mark in ((True, ""), (False, " (not shown to be worse than the rest)")):
        slices = [SliceReport({"new": True}, 3.0, singled_out, MEAN, MEAN, "previous")]
        evidence = Evidence(alarm=alarm, comparison=concurrent, slices=slices)
        assert sentence(decision(evidence, action=Action.ROLLBACK, to="v1")) == (
            f"m was taken back from v2 to v1: 310 in 1,000 answers were wrong for new True{mark}, usually 59 in 1,000, "
            "while v1 had 31 in 1,000 in the same time."
        )


def test_sentence_of_a_share_gives_both_shares_and_when_it_is_decided() -> None:
    raised = HoldbackReport("v1", 0.3, None, raised_from=0.05, expected_ts=60_000)
    changes: dict[str, object] = {"action": Action.NONE, "reason": Reason.CONFIRMING, "slice": None}
    assert sentence(decision(Evidence(holdback=raised), **changes)) == (
        "m v2 got worse; v1 answers 30 % instead of 5 % to show whether it is better, which is expected by "
        "1970-01-01T00:01:00+00:00."
    )
    asked = HoldbackReport("v1", 0.05, None, proposed=0.3, expected_ts=None)
    assert sentence(decision(Evidence(holdback=asked), **changes | {"action": Action.PROPOSE})) == (
        "m v2 got worse; v1 should answer 30 % instead of 5 % to show whether it is better, which is not known yet; an "
        "operator has to approve."
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"action": Action.ROLLBACK, "to": "v1"}, "m was taken back from v2 to v1"),
        ({"action": Action.PROPOSE, "to": "v1"}, "an operator has to approve"),
        ({"action": Action.OBSERVE, "to": "v1"}, "only being observed"),
        ({"action": Action.PAGE}, "A person is needed for m v2 for new True"),
        (
            {"action": Action.NONE, "reason": Reason.HEALTHY},
            "m v2 shows no sign that it got worse; a rise of 4 in 100 or more would have shown.",
        ),
        (
            {"action": Action.NONE, "reason": Reason.LEARNING},
            "It is not known yet whether m v2 got worse: 380 more outcomes are needed, expected by 1970",
        ),
        ({"action": Action.PAGE, "reason": Reason.MIX_SHIFT}, "because more requests with new True come than before"),
        ({"action": Action.NONE, "reason": Reason.HELD, "slice": None}, "Nothing was done about m v2: an operator"),
    ],
)
def test_sentence_gives_the_act(changes: dict[str, object], text: str) -> None:
    assert text in sentence(decision(FULL, **changes))


def test_last_decision_of_a_file_is_explained_and_can_be_had_as_written(tmp_path: Path) -> None:
    lines = [decision_bytes(decision(FULL, id=name)) for name in ("d-1", "d-2")]
    content = b"\n".join([lines[0], b'{"type":"prediction","id":"decision"}', b'"decision" {', lines[1], b""])
    assert explained(tmp_path, content, "last").output == page(decision(FULL, id="d-2")) + "\n"
    assert explained(tmp_path, content, "d-1").output == page(decision(FULL, id="d-1")) + "\n"
    assert explained(tmp_path, content, "--json", "d-1").output.encode() == lines[0] + b"\n"
    assert "there is no decision d-3" in explained(tmp_path, content, "d-3").output


@pytest.mark.parametrize("damage", [{"ts": "noon"}, {"reason": "BORED"}, {"evidence": 3}, {"digests": {}}])
def test_damaged_decision_is_refused_with_one_sentence_that_names_the_place(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    plain = json.loads(decision_bytes(decision(FULL))) | damage
    done = explained(tmp_path, json.dumps(plain).encode(), "last")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert "the decision is damaged, or written by another version" in done.output
    assert f"$.{next(iter(damage))}" in done.output


def test_time_beyond_any_calendar_is_printed_as_it_is() -> None:
    assert f"at {10**18} ms" in page(decision(FULL, ts=10**18))
