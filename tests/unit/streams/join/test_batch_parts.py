"""Parts of many batches that are built at once are those that are built one by one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from streams.config.parse import parse
from streams.join.batch_parts import numbered
from streams.join.pending import Pending
from streams.ledger.records import Batch, Part
from tests.pipelines import Run
from unship.codec import encode_line
from unship.events import Event, Feedback, Prediction

START = 1_772_409_600_000
CONFIGS = {
    "at once": "models: {m: {losses: [zero_one, brier], slices: {by: [country, tier]}}, n: {losses: [zero_one]}}",
    "maturity": "defaults: {labels: {mature_after: 20s}}\nmodels: {m: {losses: [zero_one], slices: {by: [country]}}}",
    "log loss": "models: {m: {losses: [{log: {cap: 4}}]}, n: {losses: [zero_one]}}",
}


def lines_of(seed: int, *, odd: float) -> list[bytes]:
    """Return predictions and labels of two models, some labels late or of no use, and some ids repeated."""
    rng, now = random.Random(seed), START
    lines: list[bytes] = []
    for number in range(150):
        now += rng.choice([0, 1, 700, 1_500])
        model = rng.choice(["m", "m", "n"])
        role: Any = rng.choice(["live", "live", "holdback"])
        slices: dict[str, Any] = {"country": rng.choice(["DE", "FR", 7, True]), "tier": rng.choice([1, 2.5, "x"])}
        for name in rng.sample(sorted(slices), rng.randrange(3)):
            del slices[name]
        id = f"p{number if rng.random() > odd else number // 2}"
        score = rng.choice([0.25, 0.5, None]) if rng.random() < odd else 0.25
        event: Event = Prediction(
            id=id,
            model=model,
            version=f"v{len(role) % 2}",
            output=rng.randrange(2),
            ts=now,
            role=role,
            score=score,
            slices=slices,
            unit_hash=len(lines) * 2**20 % 2**32 if len(lines) % 3 else None,
        )
        lines.append(encode_line(event))
        labelled = rng.randrange(max(number - 30, 0), number + 1) if rng.random() < odd else number
        truth: Any = rng.choice([0, 1, "a", True]) if rng.random() < odd else rng.randrange(2)
        lines.append(encode_line(Feedback(id=f"p{labelled}", truth=truth, ts=now, source=rng.choice(["a", "b"]))))
    return lines


def ledger_of(text: str, lines: list[bytes], at_once: int) -> tuple[list[bytes], Run]:
    """Return the ledger of lines of which so many are read at once."""
    made = Run(parse(f"log: embedded:./log\n{text}"))
    for begin in range(0, len(lines), at_once):
        made.take(lines[begin : begin + at_once])
    made.rest()
    return [step.entry.value for step in made.steps], made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("odd", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("name", CONFIGS)
def test_batches_built_at_once_have_the_bytes_of_those_built_one_by_one(name: str, seed: int, odd: float) -> None:
    lines = lines_of(seed, odd=odd)
    expected, made = ledger_of(CONFIGS[name], lines, 1)
    for at_once in (45, len(lines)):
        found, other = ledger_of(CONFIGS[name], lines, at_once)
        assert found == expected
        assert other.counts == made.counts


@pytest.mark.parametrize(
    ("name", "odd", "share"), [("at once", 0.0, 1.0), ("maturity", 0.3, 0.1), ("log loss", 0.0, 0.0)]
)
def test_plain_rows_are_built_at_once_and_others_are_not(
    name: str, odd: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[Part] | None] = []
    take = Pending.take_expected

    def noted(pending: Pending, line: int | None) -> list[Part] | None:
        taken.append(take(pending, line))
        return taken[-1]

    monkeypatch.setattr(Pending, "take_expected", noted)
    _, made = ledger_of(CONFIGS[name], lines_of(1, odd=odd), 800)
    batches = sum(isinstance(step.entry.record, Batch) for step in made.steps)
    # The last batch of what is read is never expected.
    assert sum(found is not None for found in taken) >= share * (batches - 1)
    assert share > 0 or not any(taken)


@pytest.mark.parametrize("distinct", [3, 2_000])
def test_column_of_which_each_batch_has_many_values_of_its_own_is_numbered_all_the_same(distinct: int) -> None:
    """As many values as rows in hundreds of batches are too many for a table of the two."""
    rng = np.random.default_rng(1)
    codes = rng.integers(-1, distinct, 4_000)
    batch = np.sort(rng.integers(0, 300, codes.size))
    numbers, occurring, bounds = numbered(codes, batch, 300)
    for number in range(300):
        mine = batch == number
        expected = list(dict.fromkeys(code for code in codes[mine].tolist() if code >= 0))
        assert occurring[bounds[number] : bounds[number + 1]] == expected
        assert [expected[place] if place >= 0 else -1 for place in numbers[mine]] == codes[mine].tolist()
