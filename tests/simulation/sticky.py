"""Users who are answered by one version all the time, as `Fleet.choose` deals them out; both versions are equally good.

Each user has an error rate and an activity of its own. The rate comes from a beta law of mean .15, and activities are
lognormal: a tenth of the users sends most requests.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Floats, Ints
from detectors.rows.concurrent import Comparison, new_comparison
from detectors.rows.types import Entries
from streams.window.records import units_of
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction, Role
from unship.shares import HASHES, hash_of, unit_hash

MEAN, SPREAD, ACTIVITY = 0.15, 4.0, 1.5
PROMISE = 1e6
START_MS = 1_772_409_600_000
STEP_MS = 50
WIDTH_MS = 60_000


class Users:
    """So many users, drawn by a seed."""

    def __init__(self, seed: int, count: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rates = self.rng.beta(MEAN * SPREAD, (1 - MEAN) * SPREAD, count)
        activity = self.rng.lognormal(0.0, ACTIVITY, count)
        self._reach: Floats = np.cumsum(activity) / activity.sum()

    def asking(self, requests: int) -> Ints:
        """Return who makes each of so many requests."""
        return np.minimum(np.searchsorted(self._reach, self.rng.random(requests)), self.rates.size - 1)


def compared(seed: int, users: int, *, requests: int, cohorts: int, sticky: bool, named: bool) -> Comparison:
    """Return the comparison of two equal versions; the target answers a tenth.

    Args:
        seed: Draws users and requests.
        users: How many users the target answers; the candidate nine times as many.
        requests: How many requests of both there are in a cohort.
        cohorts: How many cohorts there are.
        sticky: Whether users are dealt out, else requests.
        named: Whether outcomes have units.
    """
    all_users = Users(seed, 10 * users)
    units = np.array(units_of(list(range(10 * users))))
    comparison = new_comparison("v1", "holdback", 1, 1)
    for cohort in range(cohorts):
        who = all_users.asking(requests)
        mine = who < users if sticky else all_users.rng.random(requests) < 0.1
        wrong = all_users.rng.random(requests) < all_users.rates[who]
        at = cohort * WIDTH_MS + np.sort(all_users.rng.integers(0, WIDTH_MS, requests))
        arms = []
        for use in (mine, ~mine):
            nothing = np.zeros(int(use.sum()), np.int64)
            unit = units[who[use]] if named else None
            arms.append(Entries(at[use], nothing[None], nothing, wrong[use][None].astype(float), None, unit))
        comparison.add(arms[0], arms[1], cohort * WIDTH_MS, WIDTH_MS)
        comparison.settle()
    return comparison


def lines_of(seed: int, users: int, *, requests: int, named: bool) -> list[bytes]:
    """Return a recording: v2, as good as v1, replaces it, and v1 keeps 30 % of the users; then five users get harder.

    Args:
        seed: Draws users and requests.
        users: How many users there are.
        requests: How many requests they make.
        named: Whether predictions have units.
    """
    all_users = Users(seed, users)
    who, luck = all_users.asking(requests), all_users.rng.random(requests)
    hashes = [hash_of("m", (0, seed, 0), f"user-{user}") for user in range(users)]
    replaced, harder = requests // 4, requests // 2
    hard = set(np.argsort(np.bincount(who, minlength=users))[-5:].tolist())
    events: list[Event] = [Deployment(model="m", version="v1", status="live", ts=START_MS)]
    for i in range(requests):
        ts = START_MS + i * STEP_MS
        if i == replaced:
            events.append(Deployment(model="m", version="v2", status="live", ts=ts))
            events.append(Deployment(model="m", version="v1", status="holdback", ts=ts))
        user = int(who[i])
        kept = i > replaced and hashes[user] < HASHES * 0.3
        version = "v1" if kept or i < replaced else "v2"
        rate = 0.9 if i > harder and user in hard else all_users.rates[user]
        unit = unit_hash(hashes[user]) if named else None
        role: Role = "holdback" if kept else "live"
        events.append(Prediction(id=f"p{i}", model="m", version=version, role=role, output=1, ts=ts, unit_hash=unit))
        events.append(Feedback(id=f"p{i}", truth=int(luck[i] >= rate), ts=ts))
    return [encode_line(event) for event in events]
