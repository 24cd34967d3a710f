"""What is decided does not depend on how many records a driver knows ahead."""

from __future__ import annotations

import random
from typing import Any

import pytest

from actions.journal import decision_bytes
from streams.config.parse import parse
from streams.fold.lookahead import Ahead
from streams.ledger.encoding import pack
from tests.pipelines import Run
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

START = 1_772_409_600_000
CONFIG = """
log: embedded:./log
defaults: {labels: {mature_after: MATURITY}}
models: {m: {losses: [zero_one, brier], slices: {by: [country]}, policy: {mode: act}, detectors: DETECTORS}}
"""


def lines_of(
    seed: int, *, decays_at: int, replaced_at: int = -1, new_slice_at: int = -1, gap_ms: int = 200
) -> list[bytes]:
    """Return predictions of a live version and of its holdback with their labels, one in `gap_ms` at the latest."""
    rng, now, live = random.Random(seed), START, "v2"
    events: list[Event] = [
        Deployment(model="m", version="v1", status="holdback", ts=START),
        Deployment(model="m", version="v2", status="live", ts=START),
    ]
    for number in range(2_400):
        now += rng.randrange(gap_ms)
        if number == replaced_at:
            live = "v3"
            events.append(Deployment(model="m", version="v3", status="live", ts=now))
        held = rng.random() < 0.3
        wrong = rng.random() < (0.4 if not held and number >= decays_at else 0.1)
        role: Any = "holdback" if held else "live"
        country = "NEW" if new_slice_at >= 0 and number >= new_slice_at else rng.choice(["DE", "FR"])
        version = "v1" if held else live
        events.append(
            Prediction(
                id=f"p{number}",
                model="m",
                version=version,
                role=role,
                output=1,
                score=0.75,
                ts=now,
                slices={"country": country},
            )
        )
        events.append(Feedback(id=f"p{number}", truth=int(not wrong), ts=now, source=rng.choice(["a", "b"])))
    return [encode_line(event) for event in events]


def folded(lines: list[bytes], at_once: int, detectors: str, maturity: str) -> tuple[list[bytes], bytes]:
    """Return the decisions, and the fold at the end, of lines of which so many are read at once."""
    made = Run(parse(CONFIG.replace("DETECTORS", detectors).replace("MATURITY", maturity)))
    for begin in range(0, len(lines), at_once):
        made.take(lines[begin : begin + at_once])
    made.rest()
    return [decision_bytes(each) for step in made.steps for each in step.decisions], pack(made.fold.save())


@pytest.mark.parametrize(
    ("seed", "changes", "detectors"),
    [
        (1, {"decays_at": 9_999}, "[e_detector, adwin, page_hinkley]"),
        (2, {"decays_at": 1_700}, "[e_detector, adwin]"),
        (3, {"decays_at": 9_999, "replaced_at": 1_700}, "[e_detector]"),
        (4, {"decays_at": 9_999, "new_slice_at": 1_900}, "[e_detector, page_hinkley]"),
        (5, {"decays_at": 1_800}, "[page_hinkley, e_detector]"),
        (6, {"decays_at": 1_900, "gap_ms": 4_000}, "[e_detector, adwin]"),
    ],
)
def test_records_that_are_known_ahead_lead_to_the_same_decisions_and_state(
    seed: int, changes: dict[str, int], detectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = lines_of(seed, **changes)
    maturity = "20s" if "gap_ms" in changes else "0s"
    expected = folded(lines, 15, detectors, maturity)
    foreseen: list[bool] = []
    judge = Ahead.judge

    def noted(self: Ahead, *arguments: Any) -> bool:
        foreseen.append(judge(self, *arguments))
        return foreseen[-1]

    monkeypatch.setattr(Ahead, "judge", noted)
    assert folded(lines, 4_096, detectors, maturity) == expected
    assert sum(foreseen) > 10, "nothing was known ahead"
