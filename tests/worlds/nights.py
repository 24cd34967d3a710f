"""Record nights of a job that goes through its stores in a sorted order: the losses rise within each night."""

from __future__ import annotations

import numpy as np

from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

STORES, NIGHTS, RISEN = 120, 90, 60
LOSSES = (0.05, 0.35)
DAY_MS, START_MS = 86_400_000, 1_767_571_200_000

MATURE = """
log: embedded:./log
models:
  shops: {target: {kind: regression}, losses: [{absolute: {scale: 1}}], worse_by: 0.02, detectors: [e_detector],
          labels: {horizon: 2d, mature_after: 1d}}
"""
AT_ONCE = MATURE.replace("mature_after: 1d", "mature_after: 0s")


def night(rng: np.random.Generator, rise: float = 0.0) -> np.ndarray:
    """Return the losses of one night, store by store, from the easy ones to the hard ones."""
    mean = np.linspace(*LOSSES, STORES) + rise
    return rng.beta(mean * 8, (1 - mean) * 8)


def recorded(seed: int, rise: float = 0.0, by_value: bool = False, nights: int = NIGHTS) -> list[bytes]:
    """Return the lines of nights of which those from number `RISEN` on are worse by `rise`.

    Labels come 12 hours later, all at one time; with `by_value` they come one by one, a second apart, the smallest loss
    first.
    """
    rng = np.random.default_rng(seed)
    events: list[Event] = [Deployment(model="shops", version="v1", status="live", ts=START_MS - 1)]
    for number in range(nights):
        at, losses = START_MS + number * DAY_MS, night(rng, rise if number >= RISEN else 0.0)
        events += [
            Prediction(id=f"{number}-{store}", model="shops", version="v1", output=0.0, ts=at)
            for store in range(STORES)
        ]
        order = losses.argsort().tolist() if by_value else range(STORES)
        for place, store in enumerate(order):
            told = at + DAY_MS // 2 + (1_000 * place if by_value else 0)
            events.append(Feedback(id=f"{number}-{store}", truth=float(losses[store]), ts=told, source="tills"))
    return [encode_line(event) for event in events]
