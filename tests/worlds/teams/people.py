"""Worlds whose labels are what people do: some rate an answer, some click on a list; most do nothing.

ratings   an assistant that answers in long texts; some answers get a thumb, up or down, and a new prompt gets more
          thumbs down
clicks    a recommender; a click tells of use, no click of none, and at some moment fewer lists are clicked on
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

START = 1_777_593_600_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
ITEMS = 200
SHOWN = 10

Event = tuple[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Told:
    """Hold the lines of a recording, and when the change happened (ms)."""

    lines: list[bytes]
    changed_at: int


def ratings(seed: int, *, before: float = 0.2, after: float = 0.35, kind: str = "engagement") -> Told:
    """Return two weeks of an assistant whose new prompt gets another share of thumbs down; `kind` is `engagement` or
    `truth`, by which a thumb is told."""
    rng, events = np.random.default_rng(seed), list[Event]()
    answers, days, rated = 8_000, 14, 0.35
    change = int(0.4 * answers)
    for i in range(answers):
        at = START + days * DAY_MS * i // answers
        version, down = ("prompt-1", before) if i < change else ("prompt-2", after)
        if i in (0, change):
            events.append((at, {"type": "deployment", "version": version, "status": "live"}))
        text = f"The answer to question {i} is {'alpha beta gamma delta ' * int(rng.integers(5, 80))}"
        events.append((at, {"type": "prediction", "id": f"chat-{i}", "version": version, "output": text}))
        if rng.random() < rated:
            bad, later = rng.random() < down, at + int(rng.exponential(5 * MINUTE_MS))
            label = {"truth": "down" if bad else "up"} if kind == "truth" else {kind: 0.0 if bad else 1.0}
            events.append((later, {"type": "feedback", "id": f"chat-{i}", **label}))
    return told_of(events, START + days * DAY_MS * change // answers)


def clicks(seed: int, *, before: float = 0.2, after: float = 0.1, kind: str = "truth") -> Told:
    """Return two days of a recommender; from 60 % on lists of the live version are clicked on with another share.

    One list in five comes from the earlier version, which stays as it was. With `kind` `truth` the item is told that
    was clicked on, with `engagement` that there was a click.
    """
    rng, events = np.random.default_rng(seed), list[Event]()
    lists, hours = 16_000, 48
    switch, change = int(0.35 * lists), int(0.6 * lists)
    for i in range(lists):
        at = START + hours * HOUR_MS * i // lists
        if i == 0:
            events.append((at, {"type": "deployment", "version": "rec-a", "status": "live"}))
        if i == switch:
            events.append((at, {"type": "deployment", "version": "rec-b", "status": "live"}))
            events.append((at, {"type": "deployment", "version": "rec-a", "status": "holdback"}))
        held = i >= switch and rng.random() < 0.2
        version, role = ("rec-a", "holdback" if held else "live") if i < switch or held else ("rec-b", "live")
        share = after if version == "rec-b" and i >= change else before
        shown = [f"sku-{item}" for item in rng.choice(ITEMS, SHOWN, replace=False).tolist()]
        events.append((at, {"type": "prediction", "id": f"imp-{i}", "version": version, "role": role, "output": shown}))
        if rng.random() < share:
            later, place = at + int(rng.exponential(5 * MINUTE_MS)), min(SHOWN - 1, int(rng.exponential(2)))
            label = {"truth": shown[place]} if kind == "truth" else {kind: 1.0}
            events.append((later, {"type": "feedback", "id": f"imp-{i}", **label}))
    return told_of(events, START + hours * HOUR_MS * change // lists)


def told_of(events: list[Event], changed_at: int) -> Told:
    """Return a recording of events, which need neither times nor a model, in the order of their times."""
    ordered = sorted(events, key=lambda event: event[0])
    for at, event in ordered:
        event["ts"] = at
        if event["type"] != "feedback":
            event["model"] = "m"
    return Told([orjson.dumps(event) + b"\n" for _, event in ordered], changed_at)
