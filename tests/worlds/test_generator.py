"""The examiner is examined: the lines, read back without the generator's own arrays, say what the world describes."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pytest

from tests.worlds.expectations import Expect, violations
from tests.worlds.generator import DAY_MS, HOUR_MS, START_MS, Recording, generate
from tests.worlds.noise import MALFORMED, spoil
from tests.worlds.scenarios import FULL_LINES, SCENARIOS, scenario

LINES = 40_000


def recording_of(name: str, lines: int = LINES) -> Recording:
    return generate(scenario(name, 1, lines).world)


def time_of(event: dict[str, Any]) -> int:
    ts = event["ts"]
    return ts if isinstance(ts, int) else round(datetime.fromisoformat(ts).timestamp() * 1000)


def outcomes(recording: Recording) -> list[dict[str, Any]]:
    """Join truth to predictions in the plainest way; each prediction becomes one row, labelled or not."""
    rows: dict[str, dict[str, Any]] = {}
    clock = 0
    for line in recording.lines:
        event = orjson.loads(line)
        assert time_of(event) >= clock, "arrival order is time order"
        clock = time_of(event)
        if event["type"] == "prediction":
            assert event["id"] not in rows
            rows[event["id"]] = event | {"ts": clock, "after": clock >= recording.world.change_ms, "delay": None}
        elif event["type"] == "feedback":
            row = rows[event["id"]]
            assert row["delay"] is None
            row |= {"delay": clock - row["ts"], "truth": event["truth"], "source": event["source"], "arrival": clock}
    return list(rows.values())


def error(rows: list[dict[str, Any]], **wanted: Any) -> float:
    """Return the share of wrong outcomes among the labelled rows that are as wanted."""
    chosen = [row for row in rows if row["delay"] is not None]
    for key, value in wanted.items():
        chosen = [row for row in chosen if row["slices"].get(key, row.get(key)) == value]
    assert len(chosen) > 200, f"too few outcomes to speak of a rate: {len(chosen)}"
    return float(np.mean([row["output"] != row["truth"] for row in chosen]))


def test_decay_doubles_the_error_of_the_live_version_only() -> None:
    rows = outcomes(recording_of("decay"))
    assert error(rows, version="v42", after=False) == pytest.approx(0.08, abs=0.015)
    assert error(rows, version="v42", after=True) == pytest.approx(0.16, abs=0.015)
    assert error(rows, version="v41", role="holdback") == pytest.approx(0.08, abs=0.02)


def test_calm_scores_are_calibrated_and_decayed_ones_are_not() -> None:
    rows = [row for row in outcomes(recording_of("decay")) if row["delay"] is not None]
    for after, worst in ((False, 0.03), (True, 1.0)):
        chosen = [row for row in rows if row["after"] == after and row["version"] == "v42"]
        score, truth = (np.array([row[key] for row in chosen]) for key in ("score", "truth"))
        gaps = [abs(score[part].mean() - truth[part].mean()) for part in (score < 0.1, score > 0.9)]
        assert max(gaps) < worst
        assert after == (max(gaps) > 0.05)


def test_labels_are_late_and_out_of_order_and_nearly_all_come() -> None:
    rows = outcomes(recording_of("no_change"))
    rows = [row for row in rows if row["ts"] < START_MS + 7 * HOUR_MS]
    delays = [row["delay"] for row in rows if row["delay"] is not None]
    assert np.median(delays) / 60_000 == pytest.approx(10, rel=0.05)
    assert np.mean([row["delay"] is not None and row["delay"] <= HOUR_MS for row in rows]) > 0.94
    arrivals = [row["arrival"] for row in rows if row["delay"] is not None]
    assert np.mean(np.diff(arrivals) < 0) > 0.3


def test_slice_decay_touches_one_country_and_not_the_whole() -> None:
    made = scenario("slice_decay")
    rows = outcomes(generate(made.world))
    assert error(rows, version="v42", after=True, country="ES") == pytest.approx(0.32, abs=0.02)
    assert error(rows, version="v42", after=True, country="DE") == pytest.approx(0.07, abs=0.01)
    assert error(rows, role="holdback", after=True, country="ES") == pytest.approx(0.07, abs=0.03)
    whole = error(rows, version="v42", after=True) - error(rows, version="v42", after=False)
    assert whole < made.settings.worse_by + 0.005


def test_mix_shift_moves_shares_and_no_error_within_a_country() -> None:
    rows = outcomes(recording_of("mix_shift"))
    share = {
        after: np.mean([row["slices"]["country"] == "BR" for row in rows if row["after"] == after])
        for after in (False, True)
    }
    assert share[False] == pytest.approx(0.03, abs=0.01)
    assert share[True] == pytest.approx(0.4, abs=0.02)
    for country, rate in (("BR", 0.3), ("DE", 0.06)):
        assert error(rows, after=False, country=country) == pytest.approx(rate, abs=0.06)
        assert error(rows, after=True, country=country) == pytest.approx(rate, abs=0.02)
    assert error(rows, after=True) - error(rows, after=False) > 0.07


def test_poison_comes_from_one_source_and_hits_one_version() -> None:
    rows = outcomes(recording_of("poison"))
    assert error(rows, version="v42", after=True, source="analysts") == pytest.approx(0.54, abs=0.03)
    assert error(rows, version="v42", after=True, source="customers") == pytest.approx(0.08, abs=0.02)
    assert error(rows, version="v42", after=True, source="chargebacks") == pytest.approx(0.08, abs=0.02)
    assert error(rows, role="holdback", after=True, source="analysts") == pytest.approx(0.08, abs=0.05)


def test_late_labels_of_wrong_predictions_come_within_maturity() -> None:
    rows = [row for row in outcomes(recording_of("late_labels")) if row["delay"] is not None]
    wrong, right = ([row["delay"] for row in rows if (row["output"] != row["truth"]) is bad] for bad in (True, False))
    assert np.median(wrong) == pytest.approx(5 * np.median(right), rel=0.1)
    assert np.mean(np.array(wrong) <= HOUR_MS) > 0.99


def test_nightly_labels_come_in_bursts_sorted_by_truth() -> None:
    nights: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row in outcomes(recording_of("nightly")):
        if row["delay"] is not None:
            assert row["delay"] <= 26 * HOUR_MS
            nights[(row["arrival"] - START_MS) // DAY_MS].append((row["arrival"], row["truth"]))
    assert len(nights) >= 4
    for burst in nights.values():
        burst.sort()
        assert burst[-1][0] - burst[0][0] <= HOUR_MS
        truths = [truth for _, truth in burst]
        # Two labels of one millisecond have no order, so the boundary may be blurred by a line or two.
        assert sum(truths[: sum(truths)]) >= sum(truths) - 2


@pytest.mark.parametrize("name", ["label_outage", "label_loss"])
def test_outage_leaves_hours_without_feedback(name: str) -> None:
    recording = recording_of(name)
    first, last = recording.world.at(0.5), recording.world.at(0.75)
    assert last - first >= 2 * HOUR_MS
    arrivals = [row["arrival"] for row in outcomes(recording) if row["delay"] is not None]
    assert not [arrival for arrival in arrivals if first <= arrival < last]
    assert max(arrivals) > last + HOUR_MS


@pytest.mark.parametrize("lines", [80_000, FULL_LINES])
@pytest.mark.parametrize("name", SCENARIOS)
def test_evidence_fits_into_the_recording(name: str, lines: int) -> None:
    """A deadline beyond the end would excuse a monitor that never acts."""
    made = scenario(name, 1, lines)
    assert made.expect.not_after_ms <= made.world.end_ms


def test_recordings_have_the_asked_size_and_repeat_exactly() -> None:
    first, second = recording_of("decay", FULL_LINES), recording_of("decay", FULL_LINES)
    assert len(first.lines) == pytest.approx(FULL_LINES, rel=0.01)
    assert first.to_bytes() == second.to_bytes()


def test_noise_keeps_the_original_lines_and_the_clock() -> None:
    recording = recording_of("decay")
    spoiled = spoil(recording, seed=5)
    assert [spoiled.lines[i] for i in spoiled.position.tolist()] == recording.lines
    by_kind = {kind: count for kind, count in spoiled.added.items() if ":" not in kind}
    assert spoiled.bad == len(spoiled.lines) - len(recording.lines)
    assert spoiled.bad / len(recording.lines) == pytest.approx(0.2, abs=0.01)
    assert min(by_kind.values()) > 0
    assert {kind.partition(":")[2] for kind in spoiled.added} >= set(MALFORMED)
    originals = set(spoiled.position.tolist())
    clock, leaps_in_a_row, seen = 0, 0, 0
    for position, line in enumerate(spoiled.lines):
        try:
            ts = time_of(orjson.loads(line))
        except (ValueError, TypeError, KeyError):
            assert position not in originals
            continue
        if position in originals:
            clock, leaps_in_a_row = max(clock, ts), 0
        elif ts > clock:
            assert ts > clock + DAY_MS, "a line ahead of the clock is a leap"
            leaps_in_a_row, seen = leaps_in_a_row + 1, seen + 1
            assert leaps_in_a_row == 1, "a leap is alone"
    assert seen == spoiled.added["leap"]


def test_violations_name_what_is_wrong() -> None:
    right = {
        "type": "decision",
        "ts": 50,
        "model": "fraud",
        "version": "v42",
        "action": "rollback",
        "to": "v41",
        "verdict": "DEGRADED",
        "reason": "TARGET_BETTER",
        "slice": None,
        "outcomes": 7,
        "evidence": {},
    }
    expect = Expect(act="rollback", not_before_ms=40, not_after_ms=60, calm_until_ms=40)
    assert violations(expect, [right]) == []
    for change in (
        {"ts": 61},
        {"ts": 39},
        {"to": "v40"},
        {"version": "v41"},
        {"slice": {"country": "DE"}},
        {"action": "page"},
    ):
        assert violations(expect, [right | change])
    assert violations(expect, [])
    assert violations(expect, [right, right])
    assert violations(Expect(), [right])
    paged = Expect(pages=("MIX_SHIFT",), page_required=True, names=("BR",), not_after_ms=60, calm_until_ms=0)
    page = right | {"action": "page", "reason": "MIX_SHIFT", "to": None, "evidence": {"mix": ["country", "BR"]}}
    assert violations(paged, [page]) == []
    assert violations(paged, [page | {"evidence": {}}])
    assert violations(paged, [page | {"reason": "BLIND"}])
