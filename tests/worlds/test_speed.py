"""A replay costs no more than a bound of times what a fixed small program costs on the same lines.

The one test that measures. It compares processor time, not the clock, with a program that stays as it is, in the same
process and in turns; the fastest round of each counts, because what disturbs a round only adds time. The bound is
loose, so it fails for a change that makes everything several times slower, and not on a machine that is busy.
"""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable

import msgspec

from streams.config.parse import parse
from streams.recordings.replay import Replay
from tests.worlds.busy import CONFIG, busy_lines
from unship.events import Deployment, Feedback, Prediction

TIMES_THE_FLOOR_MAX = 25.0
"""Two to three times what a replay takes today, in processor time of the floor. Lower it when replays become faster."""

REQUESTS = 10_000
ROUNDS = 7
decode = msgspec.json.Decoder(Prediction | Feedback | Deployment).decode


def floor(lines: list[bytes]) -> dict[str, int]:
    """Count the wrong answers of each version: a typed parse, one dictionary, and nothing else."""
    waiting: dict[str, Prediction] = {}
    wrong: dict[str, int] = {}
    for line in lines:
        event = decode(line)
        if isinstance(event, Prediction):
            waiting[event.id] = event
        elif isinstance(event, Feedback) and (prediction := waiting.pop(event.id, None)) is not None:
            wrong[prediction.version] = wrong.get(prediction.version, 0) + (prediction.output != event.truth)
    return wrong


def cost(work: Callable[[], object]) -> float:
    gc.collect()
    begun = time.process_time()
    work()
    return time.process_time() - begun


def test_replay_costs_no_more_than_its_bound_of_times_the_floor() -> None:
    lines = [line.rstrip(b"\n") + b"\n" for line in busy_lines(1, REQUESTS)]
    recording, config = b"".join(lines), parse(CONFIG)

    def replayed() -> int:
        return len(list(Replay(config).decisions(io.BytesIO(recording))))

    def floors() -> None:
        # Five times, so that it is not over before a clock of coarse steps has moved.
        for _ in range(5):
            floor(lines)

    assert sum(floor(lines).values()) > 1_000, "the floor joined too little, so the comparison would mean nothing"
    # The first one also imports what detectors need.
    assert replayed() >= 3
    replays, bare = zip(*((cost(replayed), cost(floors) / 5) for _ in range(ROUNDS)), strict=True)
    times = min(replays) / min(bare)
    assert times <= TIMES_THE_FLOOR_MAX, f"{times:.1f} times the floor; replays {replays}, floor {bare}"
