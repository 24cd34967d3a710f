"""Run one replica of the demo, written like a service: it answers requests, and the library does the rest.

It holds no key: `trust.json` lets it verify commands, and only commands change the version that it serves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from console.census.rows import FEATURES, load_rows
from console.census.scenarios import MODEL, SLICES
from console.census.trees import load_v42, probability_of_work
from console.demo.messages import Answers, Begin, DemoClock, Round, messages, read_begin, send
from unship import Fleet

FLUSH_S = 120.0
"""Longest wait until a round is in the log; reached only on a machine that is blocked."""


def load(version: str) -> None:
    """Load a version; raise ValueError for one that does not exist."""
    if version == "v42":
        load_v42()
    elif version == "v41":
        load_rows()
    else:
        raise ValueError("expected v41 or v42")


def probabilities(version: str, row: list[int], features: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return each person's probability of work, (n,): v42 walks its trees, v41's answers are stored."""
    if version == "v42":
        return probability_of_work(load_v42().model, features)
    known = load_rows()
    found: NDArray[np.float64] = known.probability[np.searchsorted(known.row, row)]
    return found


def answer(fleet: Fleet, asked: Round) -> Answers:
    """Answer the requests of a round and emit the predictions; return when all of them are in the log."""
    chosen = [fleet.choose(id=f"ma-{row}") for row in asked.row]
    by = np.array([choice.version for choice in chosen], dtype=np.str_)
    features = np.array(asked.features, dtype=np.uint8).reshape(-1, len(FEATURES)).T
    score = np.empty(len(asked.row))
    for version in sorted(set(by.tolist())):
        mine = by == version
        score[mine] = probabilities(version, np.array(asked.row)[mine].tolist(), features[:, mine])
    output = outputs(asked.row, by, score)
    places = [FEATURES.index(name) for name in SLICES]
    for at, choice in enumerate(chosen):
        fleet.predicted(
            output[at],
            score=float(score[at]),
            slices={name: asked.features[at][place] for name, place in zip(SLICES, places, strict=True)},
            ts=asked.ts[at],
            as_=choice,
        )
    now = fleet.current
    written = fleet.flush(FLUSH_S)
    stats = fleet.stats
    detail = stats.detail if written else f"not written within {FLUSH_S:.0f} s: {stats.detail}"
    held = [choice.role == "holdback" for choice in chosen]
    return Answers(now.version, now.epoch, by.tolist(), held, score.tolist(), output, stats.dropped, detail)


def outputs(row: list[int], by: NDArray[np.str_], score: NDArray[np.float64]) -> list[int]:
    """Return the answers: v42's from its probability, v41's as they were stored, since its threshold is unknown."""
    known = load_rows()
    kept = known.prediction[np.searchsorted(known.row, row)]
    chosen: list[int] = np.where(by == "v42", score >= 0.5, kept).astype(int).tolist()
    return chosen


def serve(begin: Begin) -> None:
    """Serve until the pipe ends."""
    clock = DemoClock(begin.now)
    load("v41")
    fleet = Fleet(MODEL, "v41", on_version=load, log=begin.log, trust=begin.trust, replica=begin.replica, now_ms=clock)
    # So that a version that is held back is loaded before the first request after the release.
    fleet.choose()
    with fleet:
        for asked in messages(Round):
            clock.set(asked.now)
            send(answer(fleet, asked))


if __name__ == "__main__":
    serve(read_begin())
