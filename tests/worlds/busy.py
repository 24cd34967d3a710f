"""A small busy site: hundreds of answers a second, so that a rollback takes seconds of log time and few ledger records.

Version v1 is live, v2 replaces it while v1 goes on as holdback, and v2 decays. Labels come after some hundred
milliseconds, now and then twice, from two sources, for nothing, or not at all.
"""

import json
from zlib import crc32

import numpy as np
from msgspec.structs import replace

from unship.codec import decode_line, encode_line
from unship.events import Deployment, Event, Feedback, Prediction, SliceValue

CONFIG = """
defaults: {losses: [zero_one], one_false_alarm_per: 2000, slices: {by: [country]}, policy: {mode: act}}
"""
START_MS = 1_700_000_000_000
STEP_MS = 5


def busy_lines(seed: int, count: int = 2_000, model: str = "m") -> list[bytes]:
    """Return the events of `count` requests in order of arrival."""
    rng = np.random.default_rng(seed)
    events: list[tuple[int, Event]] = []
    replaced, decayed = count // 3, count // 2
    for at, version, status in ((0, "v1", "live"), (replaced, "v2", "live"), (replaced, "v1", "holdback")):
        ts = START_MS + at * STEP_MS
        events.append((ts, Deployment(model=model, version=version, status=status, ts=ts)))  # type: ignore[arg-type]
    for i in range(count):
        at = START_MS + i * STEP_MS
        aside = i > replaced and rng.random() < 0.4
        version = "v1" if i <= replaced or aside else "v2"
        wrong = rng.random() < (0.4 if version == "v2" and i > decayed else 0.05)
        slices: dict[str, SliceValue] = {"country": str(rng.choice(["DE", "FR"]))}
        prediction = Prediction(
            id=f"p{i}",
            model=model,
            version=version,
            output=1,
            role="holdback" if aside else "live",
            slices=slices,
            ts=at,
            replica=f"r{i % 3}",
        )
        events.append((at, prediction))
        if rng.random() < 0.02:
            events.append((at + 1, prediction))
        if rng.random() < 0.9:
            source = str(rng.choice(["a", "b"]))
            for _ in range(2 if rng.random() < 0.02 else 1):
                later = at + int(rng.integers(-20, 600))
                events.append((later, Feedback(id=f"p{i}", truth=int(not wrong), source=source, ts=later)))
        if rng.random() < 0.01:
            events.append((at, Feedback(id=f"nobody{i}", truth=1, ts=at)))
    return [encode_line(event) for _, event in sorted(events, key=lambda item: item[0])]


def untidy_lines(seed: int, count: int = 800) -> list[bytes]:
    """Return the busy site's events with shadows, units, ids used again, labels too early, late or contradicting."""
    rng = np.random.default_rng(seed)
    events: list[tuple[int, Event]] = []
    for line in busy_lines(seed, count):
        event = decode_line(line)
        assert isinstance(event, Prediction | Feedback | Deployment)
        at = event.ts or 0
        if isinstance(event, Prediction) and len(events) % 3:
            event = replace(event, unit_hash=crc32(event.id[-1:].encode()))
        events.append((at, event))
        chance = rng.random()
        if isinstance(event, Prediction) and chance < 0.1:
            shadow = replace(event, version="v9", role="shadow", output=int(rng.integers(2)), latency_ms=5.0)
            events.append((at, shadow))
        elif isinstance(event, Prediction) and chance < 0.15:
            again = at + int(rng.choice([500, 1_500, 2_500, 3_500, 6_000]))
            events.append((again, replace(event, ts=again, output=int(rng.integers(2)))))
        elif isinstance(event, Prediction) and chance < 0.17:
            events.append((at, replace(event, id=f"far-{event.id}", ts=at + 2 * 86_400_000)))
        elif isinstance(event, Feedback) and chance < 0.3:
            again = max(at + int(rng.choice([-900, -100, 0, 500, 1_500, 2_100, 2_900, 3_500, 6_000])), START_MS)
            truth = (0, 1, "x")[int(rng.integers(3))]
            events.append((again, replace(event, ts=again, truth=truth)))
    return [encode_line(event) for _, event in sorted(events, key=lambda item: item[0])]


def placed(lines: list[bytes], partitions: int = 1) -> list[bytes]:
    """Return lines with their places in logs; those of predictions and feedback have so many partitions."""
    topics = {"prediction": "predictions", "feedback": "feedback", "deployment": "deployments"}
    ends: dict[tuple[str, int], int] = {}
    found = []
    for line in lines:
        event = json.loads(line)
        topic = topics[event["type"]]
        partition = 0 if topic == "deployments" else crc32(event["id"].encode()) % partitions
        ends[topic, partition] = offset = ends.get((topic, partition), -1) + 1
        found.append(json.dumps(event | {"at": [topic, partition, offset, event["ts"]]}).encode())
    return found
