"""Worlds whose labels are measured: fraud that is confirmed days later, times of arrival, and a demand forecast.

fraud     a scorer; its second version gets wrong more often four days after its release; labels take one to five days
arrivals  predicted times of arrival in minutes; the second version predicts too late from some hour on
demand    every night the next seven days of each store, in the order of the stores; the second version forecasts too
          much from some night on, and the truth of each day is known on that day
"""

from __future__ import annotations

import numpy as np

from tests.worlds.teams.people import DAY_MS, HOUR_MS, MINUTE_MS, START, Event, Told, told_of

FRAUD_REQUESTS, FRAUD_DAYS = 60_000, 20
TRIPS, TRIP_HOURS = 20_000, 72
STORES, NIGHTS, AHEAD = 100, 80, 7


def fraud(seed: int, *, rise: float = 0.05) -> Told:
    """Return three weeks of a scorer; `rise` is how much more often it is wrong after the change."""
    rng, events = np.random.default_rng(seed), list[Event]()
    count, span = FRAUD_REQUESTS, FRAUD_DAYS * DAY_MS
    at = START + span * np.arange(count) // count
    second, changed = at >= START + 10 * DAY_MS, at >= START + 14 * DAY_MS
    truth = rng.random(count) < 0.03
    wrong = rng.random(count) < np.where(second, 0.055, 0.06) + rise * changed
    output = truth ^ wrong
    known, later = rng.random(count) < 0.95, at + DAY_MS + (4 * DAY_MS * rng.random(count)).astype(np.int64)
    country = rng.choice(["DE", "AT", "CH", "PL"], count, p=[0.6, 0.1, 0.1, 0.2]).tolist()
    for i in range(count):
        version = "8" if second[i] else "7"
        if i == 0 or second[i] != second[i - 1]:
            events.append((int(at[i]), {"type": "deployment", "version": version, "status": "live"}))
        prediction = {"version": version, "output": int(output[i]), "slices": {"country": country[i]}}
        events.append((int(at[i]), {"type": "prediction", "id": f"r{i}", **prediction}))
        if known[i]:
            events.append((int(later[i]), {"type": "feedback", "id": f"r{i}", "truth": int(truth[i])}))
    return told_of(events, START + 14 * DAY_MS)


def arrivals(seed: int, *, bias: float = 3.5) -> Told:
    """Return three days of predicted times of arrival; `bias` is by how many minutes they are late after the change."""
    rng, events = np.random.default_rng(seed), list[Event]()
    second, change = int(0.4 * TRIPS), int(0.7 * TRIPS)
    minutes = np.maximum(2, rng.lognormal(2.8, 0.5, TRIPS))
    output = minutes + rng.normal(0, 2.5, TRIPS) + bias * (np.arange(TRIPS) >= change)
    city, told = rng.choice(["BER", "HAM", "MUC"], TRIPS).tolist(), rng.random(TRIPS) < 0.98
    for i in range(TRIPS):
        at, version = START + TRIP_HOURS * HOUR_MS * i // TRIPS, "eta-3" if i < second else "eta-4"
        if i in (0, second):
            events.append((at, {"type": "deployment", "version": version, "status": "live"}))
        prediction = {"version": version, "output": round(float(output[i]), 2), "slices": {"city": city[i]}}
        events.append((at, {"type": "prediction", "id": f"o{i}", **prediction}))
        if told[i]:
            label = {"type": "feedback", "id": f"o{i}", "truth": round(float(minutes[i]), 2)}
            events.append((at + int(minutes[i] * MINUTE_MS), label))
    return told_of(events, START + TRIP_HOURS * HOUR_MS * change // TRIPS)


def demand(seed: int, *, factor: float = 1.25) -> Told:
    """Return 80 nights of a forecast; `factor` is how much too much the second version forecasts from the 60th on."""
    rng, events = np.random.default_rng(seed), list[Event]()
    for night in range(NIGHTS):
        at, version = START + night * DAY_MS, "sarima-1" if night < 40 else "lgbm-2"
        if night in (0, 40):
            events.append((at, {"type": "deployment", "version": version, "status": "live"}))
        base = np.repeat(50.0 + np.arange(STORES), AHEAD)
        day = np.tile(np.arange(1, AHEAD + 1), STORES)
        truth = base * np.exp(rng.normal(0, 0.15, base.size))
        output = base * (factor if night >= 60 else 1.0) * np.exp(rng.normal(0, 0.05 + 0.01 * day))
        for i in range(base.size):
            name, row = f"{night}-{i // AHEAD}", int(day[i])
            about = {"version": version, "output": round(float(output[i]), 1), "slices": {"region": i // AHEAD % 5}}
            events.append((at, {"type": "prediction", "id": name, "row": row, **about}))
            label = {"type": "feedback", "id": name, "row": row, "truth": round(float(truth[i]), 1)}
            events.append((at + row * DAY_MS + 3 * HOUR_MS, label))
    return told_of(events, START + 60 * DAY_MS)
