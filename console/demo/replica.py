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
from unship.replica.fence import Serving

FLUSH_S = 120.0
"""Longest wait until a round is in the log; reached only on a machine that is blocked."""

HOLDBACK = Serving("v41", None, None)


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
    now = fleet.current
    # Once v41 is live again there is no holdback.
    held = np.array(asked.held, dtype=np.bool_) & (now.version != HOLDBACK.version)
    features = np.array(asked.features, dtype=np.uint8).reshape(-1, len(FEATURES)).T
    score = np.empty(len(asked.row))
    for serving, chosen in ((now, ~held), (HOLDBACK, held)):
        if chosen.any():
            rows = np.array(asked.row)[chosen].tolist()
            score[chosen] = probabilities(serving.version, rows, features[:, chosen])
    output = outputs(asked.row, np.where(held, HOLDBACK.version, now.version), score)
    places = [FEATURES.index(name) for name in SLICES]
    for at, row in enumerate(asked.row):
        fleet.predicted(
            output[at],
            id=f"ma-{row}",
            score=float(score[at]),
            role="holdback" if held[at] else "live",
            slices={name: asked.features[at][place] for name, place in zip(SLICES, places, strict=True)},
            ts=asked.ts[at],
            as_=HOLDBACK if held[at] else now,
        )
    written = fleet.flush(FLUSH_S)
    stats = fleet.stats
    detail = stats.detail if written else f"not written within {FLUSH_S:.0f} s: {stats.detail}"
    by = [HOLDBACK.version if each else now.version for each in held.tolist()]
    return Answers(now.version, now.epoch, by, score.tolist(), output, stats.dropped, detail)


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
    with Fleet(
        MODEL, "v41", on_version=load, log=begin.log, trust=begin.trust, replica=begin.replica, now_ms=clock
    ) as fleet:
        for asked in messages(Round):
            clock.set(asked.now)
            send(answer(fleet, asked))


if __name__ == "__main__":
    serve(read_begin())
