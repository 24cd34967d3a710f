"""The departures of an airport over a year as a recording: a model trained on January beside one that knows nothing.

`examples/flights/SOURCE.md` describes the rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson

ROWS = Path(__file__).parents[3] / "examples" / "flights" / "rows.npz"
MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
MATURE_MS = DAY_MS
NEVER = 2**15 - 1
HOLDBACK_PER = 10
CONFIG = """
log: embedded:./unused
models:
  late:
    losses: [brier]
    labels: {horizon: 7d, mature_after: 1d}
    slices: {by: [carrier]}
    worse_by: 0.03
    policy: {mode: act}
"""
"""The loss counts how sure an answer was: both models would rather not call a flight late at all."""


def lines(real_delays: bool) -> list[bytes]:
    """Return the recording: labels at the time of arrival, or all of them after exactly `MATURE_MS`."""
    with np.load(ROWS) as archive:
        rows = {name: archive[name] for name in archive.files}
    asked = (rows["scheduled"].astype(np.int64).cumsum() - 60) * MINUTE_MS
    landed, january = rows["known_after"] < NEVER, int(rows["january"])
    delay = (rows["known_after"].astype(np.int64) + 60) * MINUTE_MS if real_delays else np.full(asked.size, MATURE_MS)
    known = asked + delay
    usual = float(rows["late"][:january][landed[:january]].mean())
    names = rows["carriers"].tolist()
    events: list[tuple[int, int, dict[str, object]]] = [
        (int(asked[0]), 0, {"type": "deployment", "model": "late", "version": "usual", "status": "live"}),
        (int(asked[january]), 0, {"type": "deployment", "model": "late", "version": "january", "status": "live"}),
        (int(asked[january]), 0, {"type": "deployment", "model": "late", "version": "usual", "status": "holdback"}),
    ]
    for i in range(asked.size):
        held = i >= january and i % HOLDBACK_PER == 0
        old = held or i < january
        score = usual if old else int(rows["score"][i]) / 200
        prediction: dict[str, object] = {
            "type": "prediction",
            "id": f"f{i}",
            "model": "late",
            "version": "usual" if old else "january",
            "role": "holdback" if held else "live",
            "output": int(score >= 0.5),
            "score": round(score, 4),
            "slices": {"carrier": names[rows["carrier"][i]]},
        }
        events.append((int(asked[i]), 1, prediction))
        if landed[i]:
            events.append((int(known[i]), 2, {"type": "feedback", "id": f"f{i}", "truth": int(rows["late"][i])}))
    events.sort(key=lambda event: event[:2])
    return [orjson.dumps(event | {"ts": ts}) for ts, _, event in events]
