"""Rows of many batches are compared at once: equal however the batches were cut, and every change is noticed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from msgspec import UNSET
from msgspec.structs import replace

from streams.audit.blocks import hold_the_same
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.join.partition import Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Batch, Coded, Part
from tests.pipelines import source_records_of
from tests.worlds.busy import CONFIG, untidy_lines
from unship.codec import decode_line
from unship.events import Feedback, Prediction

UNLABELLED = CONFIG.replace("defaults: {", "defaults: {labels: {mature_after: 1s, missing: negative}, ")


def sources(seed: int) -> tuple[list[Raw], list[Raw]]:
    logs: tuple[list[Raw], list[Raw]] = ([], [])
    now = 0
    for line in untidy_lines(seed, 900):
        event = decode_line(line)
        if isinstance(event, Prediction | Feedback):
            now = max(now, event.ts or 0)
            log = logs[isinstance(event, Feedback)]
            log.append(Raw(len(log), now, line))
    return logs


def cut(config: Config, logs: tuple[list[Raw], list[Raw]], steps: list[int]) -> list[Batch]:
    """Return the batches of a reader that flushes after so many records, as a ledger would hold them."""
    reader, batches = SourceReader(config, 0, Position(1)), []
    for side, log in enumerate(logs):
        reader.give(side, source_records_of(log))
    for records in steps:
        if reader.advance((True, True), records):
            batches += reader.flush()
    read = [read_entry(entry_of(batch).value).record for batch in batches]
    return [batch for batch in read if isinstance(batch, Batch)]


def small_steps(seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, 60, 400).tolist()


@pytest.fixture(params=[CONFIG, UNLABELLED], ids=["labelled", "unlabelled"])
def config(request: pytest.FixtureRequest) -> Config:
    return parse(request.param)


@pytest.mark.parametrize("seed", range(3))
def test_batches_hold_what_is_joined_at_once_however_they_were_cut(config: Config, seed: int) -> None:
    logs = sources(seed)
    batches, (whole,) = cut(config, logs, small_steps(seed)), cut(config, logs, [100_000])
    assert len(batches) > 20
    assert hold_the_same(batches, whole)
    assert hold_the_same([whole], whole)
    assert not hold_the_same(batches[:-1], whole)
    assert not hold_the_same(batches, replace(whole, parts=whole.parts[1:]))


def part_with(batches: list[Batch], fits: Callable[[Part], bool]) -> tuple[int, int]:
    return next((i, k) for i, batch in enumerate(batches) for k, part in enumerate(batch.parts) if fits(part))


def with_part(batches: list[Batch], place: tuple[int, int], part: Part) -> list[Batch]:
    i, k = place
    parts = [*batches[i].parts[:k], part, *batches[i].parts[k + 1 :]]
    return [*batches[:i], replace(batches[i], parts=parts), *batches[i + 1 :]]


def flipped(column: Coded) -> Coded:
    return Coded([f"{value}x" for value in column.values], column.codes)


CHANGES: dict[str, Callable[[Part], Part]] = {
    "loss": lambda part: replace(part, outcomes=replace(part.outcomes, losses=part.outcomes.losses * 0.5 + 0.25)),
    "label time": lambda part: replace(
        part, outcomes=replace(part.outcomes, labelled_at=part.outcomes.labelled_at + 1)
    ),
    "time": lambda part: replace(part, outcomes=replace(part.outcomes, predicted_at=part.outcomes.predicted_at + 1)),
    "place": lambda part: replace(part, outcomes=replace(part.outcomes, labelled_by=part.outcomes.labelled_by - 1)),
    "source": lambda part: replace(part, outcomes=replace(part.outcomes, source=flipped(part.outcomes.source))),
    "slice": lambda part: replace(part, outcomes=replace(part.outcomes, slices=[flipped(part.outcomes.slices[0])])),
    "version": lambda part: replace(part, arms=[replace(arm, version=f"{arm.version}x") for arm in part.arms]),
    "role": lambda part: replace(part, arms=[replace(arm, role="shadow") for arm in part.arms]),
    "unit": lambda part: replace(part, outcomes=replace(part.outcomes, unit=part.outcomes.arm + 7)),
    "no unit": lambda part: replace(part, outcomes=replace(part.outcomes, unit=UNSET)),
    "model": lambda part: replace(part, model=f"{part.model}x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_change_of_a_row_is_noticed(config: Config, name: str) -> None:
    logs = sources(1)
    batches, (whole,) = cut(config, logs, small_steps(1)), cut(config, logs, [100_000])
    place = part_with(batches, lambda part: part.outcomes.unit is not UNSET and bool(part.outcomes.slices))
    part = CHANGES[name](batches[place[0]].parts[place[1]])
    assert not hold_the_same(with_part(batches, place, part), whole)


def test_rows_in_a_batch_that_does_not_reach_them_are_noticed(config: Config) -> None:
    logs = sources(2)
    batches, (whole,) = cut(config, logs, small_steps(2)), cut(config, logs, [100_000])
    i, _ = part_with(batches[1:], lambda part: bool(part.outcomes.arm.size))
    later = batches[i + 1]
    moved = [*batches]
    moved[i] = replace(batches[i], parts=[*batches[i].parts, *later.parts])
    moved[i + 1] = replace(later, parts=[])
    assert not hold_the_same(moved, whole)


def test_changed_count_is_noticed(config: Config) -> None:
    logs = sources(0)
    batches, (whole,) = cut(config, logs, small_steps(0)), cut(config, logs, [100_000])
    i = next(i for i, batch in enumerate(batches) if batch.counted.change.size)
    counted = replace(batches[i].counted, change=batches[i].counted.change + 1)
    assert not hold_the_same([*batches[:i], replace(batches[i], counted=counted), *batches[i + 1 :]], whole)


def test_true_is_another_value_of_a_slice_than_one(config: Config) -> None:
    logs = sources(1)
    batches, (whole,) = cut(config, logs, small_steps(1)), cut(config, logs, [100_000])

    def valued(value: bool | int) -> Callable[[Part], Part]:
        def change(part: Part) -> Part:
            codes = np.zeros(part.outcomes.arm.size, np.int64)
            return replace(part, outcomes=replace(part.outcomes, slices=[Coded([value], codes)]), unlabelled=None)

        return change

    def all_valued(value: bool | int, held: list[Batch]) -> list[Batch]:
        return [replace(batch, parts=[valued(value)(part) for part in batch.parts]) for batch in held]

    (ones,) = all_valued(1, [whole])
    assert hold_the_same(all_valued(1, batches), ones)
    assert not hold_the_same(all_valued(True, batches), ones)
