"""A seeded plan of faults for the soak: what breaks, when, and for how long."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

ROUND_S = 40.0
WORKERS, BROKERS, REPLICAS = 2, 3, 3
#: Ways to break each kind of thing, with the shortest and the longest time in seconds until it is healed.
WAYS: dict[str, dict[str, tuple[float, float]]] = {
    "broker": {
        "killed": (2.0, 12.0),
        "frozen": (2.0, 12.0),
        "restarted": (0.0, 1.0),
        "killed with another one": (3.0, 8.0),
        "cut off from clients": (2.0, 12.0),
        "cut off from the other brokers": (2.0, 12.0),
    },
    "worker": {"killed": (0.0, 5.0), "frozen": (1.0, 20.0), "stopped": (0.0, 5.0)},
    "replica": {"killed": (0.0, 5.0), "frozen": (1.0, 15.0)},
}
#: Mean time in seconds between the end of a fault and the next one of the same thing; all brokers count as one thing,
#: so that a majority of them is broken only where that is the fault.
PAUSE_S = {"broker": 6.0, "worker": 15.0, "replica": 20.0}


class Step(NamedTuple):
    """One fault: seconds since its round began, the kind of thing and its number from 1 on, and how it is broken."""

    at_s: float
    thing: str
    number: int
    way: str
    lasts_s: float


def plan(seed: int, minutes: float) -> list[list[Step]]:
    """Return rounds of faults, each in order of time; after each round everything is healed and looked at.

    >>> plan(7, 5) == plan(7, 5), plan(7, 5) == plan(8, 5)
    (True, False)
    """
    chance = np.random.default_rng(seed)
    # Healing and looking take about as long as half of a round.
    rounds = max(1, round(minutes * 60 / (1.5 * ROUND_S)))
    return [sorted(_round(chance)) for _ in range(rounds)]


def _round(chance: np.random.Generator) -> Iterator[Step]:
    things: list[tuple[str, int | None]] = [("broker", None)]
    things += [("worker", number) for number in range(1, WORKERS + 1)]
    things += [("replica", number) for number in range(1, REPLICAS + 1)]
    for thing, number in things:
        at = float(chance.exponential(PAUSE_S[thing]))
        while at < ROUND_S:
            ways = WAYS[thing]
            way = list(ways)[int(chance.integers(len(ways)))]
            lasts = float(chance.uniform(*ways[way]))
            which = int(chance.integers(1, BROKERS + 1)) if number is None else number
            yield Step(round(at, 1), thing, which, way, round(lasts, 1))
            at += lasts + float(chance.exponential(PAUSE_S[thing]))


def told(rounds: list[list[Step]]) -> Iterator[str]:
    """Yield a plan in words, a line for each fault."""
    for number, steps in enumerate(rounds, 1):
        for step in steps:
            what = f"{step.thing} {step.number} {step.way}"
            yield f"round {number:2}, {step.at_s:4.1f} s: {what}, {step.lasts_s:.1f} s"
