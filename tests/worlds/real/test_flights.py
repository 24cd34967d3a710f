"""A year of real flights, where bad news comes later than good news: no version is at fault, so none is taken back."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from console.cli import main
from tests.worlds.real.flights import CONFIG, DAY_MS, MATURE_MS, NEVER, ROWS, lines

SETTLED = ("model", "version", "action", "to", "verdict", "reason", "slice")


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[dict[str, object]]]:
    """Return what is decided with labels at the time of arrival (True), and with all of them at maturity (False)."""
    folder = tmp_path_factory.mktemp("flights")
    config = folder / "unship.yaml"
    config.write_text(CONFIG)
    found = {}
    for real in (True, False):
        recording = folder / f"{real}.ndjson"
        recording.write_bytes(b"\n".join(lines(real)) + b"\n")
        result = CliRunner().invoke(main, ["-q", "-c", str(config), "replay", str(recording)])
        assert result.exit_code == 0, result.output
        found[real] = [orjson.loads(line) for line in result.stdout.splitlines()]
    return found


def test_bad_news_that_comes_later_changes_no_decision(decisions: dict[bool, list[dict[str, object]]]) -> None:
    real, even = decisions[True], decisions[False]
    assert [[each[name] for name in SETTLED] for each in real] == [[each[name] for name in SETTLED] for each in even]
    cohort_ms = MATURE_MS // 20
    assert all(abs(one["ts"] - other["ts"]) <= cohort_ms for one, other in zip(real, even, strict=True))  # type: ignore[operator]


def test_a_year_without_a_fault_of_the_model_brings_no_rollback(decisions: dict[bool, list[dict[str, object]]]) -> None:
    assert decisions[True]
    assert not [each for each in decisions[True] if each["action"] in ("rollback", "propose")]


def test_blizzard_that_leaves_flights_without_truth_is_a_coverage_shift(
    decisions: dict[bool, list[dict[str, object]]],
) -> None:
    blizzard = int(datetime(2013, 2, 8, tzinfo=UTC).timestamp() * 1000)
    shifts = [each["ts"] for each in decisions[True] if each["reason"] == "COVERAGE_SHIFT"]
    assert any(blizzard <= ts <= blizzard + 2 * DAY_MS + MATURE_MS for ts in shifts)  # type: ignore[operator]


def test_kept_flights_are_what_their_source_says() -> None:
    with np.load(ROWS) as rows:
        known, late = rows["known_after"], rows["late"] == 1
        assert known.size == 104_662
        landed = known < NEVER
        assert round(float(1 - landed.mean()), 3) == 0.034
        assert float(np.median(known[landed & ~late])) == 143.0
        assert 193 <= float(np.median(known[landed & late])) <= 194
