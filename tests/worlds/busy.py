"""A small busy site: hundreds of answers a second, so that a rollback takes seconds of log time and few ledger records.

Version v1 is live, v2 replaces it while v1 goes on as holdback, and v2 decays. Labels come after some hundred
milliseconds, now and then twice, from two sources, for nothing, or not at all.
"""

import numpy as np

from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

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
        slices: dict[str, str | int | bool] = {"country": str(rng.choice(["DE", "FR"]))}
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
