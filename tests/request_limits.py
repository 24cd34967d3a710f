"""Which records of a request the join keeps, by brute force over a whole log; the join counts as it reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NamedTuple

from streams.window import early_labels, pending_predictions

Limits = tuple[int, int]
"""Horizon and early time."""


class Asked(NamedTuple):
    """A prediction: its key, model and version, and its join clock."""

    key: Hashable
    model: str
    version: str
    at: int


class Told(NamedTuple):
    """A label: its key, the model it names, and its join clock."""

    key: Hashable
    model: str | None
    at: int


def width_of(limits: Limits) -> int:
    return max(max(limits) // 8, 1)


def kept_predictions(
    log: Sequence[Asked], limits: Callable[[str], Limits], listed: Collection[str]
) -> tuple[list[bool], list[bool]]:
    """Return of each prediction whether it is kept, and whether it is refused by a limit where it repeats none."""
    kept: list[bool] = []
    refused: list[bool] = []
    for number, mine in enumerate(log):
        width, reach = width_of(limits(mine.model)), sum(limits(mine.model))
        before = [log[place] for place in range(number) if kept[place] and log[place].key == mine.key]
        interval = [other for other in before if other.at // width == mine.at // width]
        same = [other for other in before if (other.model, other.version) == (mine.model, mine.version)]
        versions = {other.version for other in interval if other.model == mine.model}
        others = {other.model for other in interval} - {*listed, mine.model}
        full = len(versions) >= pending_predictions.VERSIONS_MAX
        if not versions and mine.model not in listed:
            full = len(others) >= pending_predictions.UNLISTED_MAX
        kept.append(mine.version not in versions and not full)
        refused.append(full and not any(mine.at - other.at <= reach for other in same))
    return kept, refused


def kept_labels(log: Sequence[Told], early_ms: int) -> list[bool]:
    """Return of each label whether it is taken."""
    width, counts = max(early_ms // 8, 1), dict[Any, int]()
    found = []
    for label in log:
        place = label.key, label.model, label.at // width
        counts[place] = counts.get(place, 0) + 1
        found.append(counts[place] <= early_labels.LABELS_MAX)
    return found
