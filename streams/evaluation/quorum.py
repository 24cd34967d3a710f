"""Ask whether a finding rests on one source of labels: each large one is left out in turn, and it has to show without.

Three things are asked before a version is taken back: does the rise of the live version show without each source, does
the target's lead, and, where the target got worse as well, does that. What a source is depends on the configuration: a
list of names makes all others one pool, of which nobody knows how many writers it has.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from actions.evidence import Quorum
from actions.evidence_tree import Lead, Without
from detectors.base import Floats, rounded
from detectors.rows.types import SOURCE_CELLS, Alarm, Rules
from detectors.rows.watch import Health
from streams.evaluation.mix import Z_95
from streams.evaluation.sources import SourceTable

SOURCE_SHARE = 0.1
POOL_SHARE = 0.5
QUORUM_LEAST = 1_000.0
USUAL_LEAST = 100.0
"""A source with fewer outcomes from before the change is measured against what is usual for all of them."""

REST = 0.5
"""How much of a rise, or of a lead, has to show without a source where no row of detectors leaves it out."""


def threshold_of(stream: int, rules: Rules) -> float:
    """Return the evidence a row alone must reach: the promise overall, more for a slice by its small weight."""
    return rules.promise if stream == 0 else rules.promise / float(rules.weights[stream])


def source_shares(health: Health, alarm: Alarm) -> Floats:
    """Return each label source's outcomes in the alarmed stream since its change point, shape (sources,)."""
    # Unlabelled outcomes have no source; exclude the last cell.
    counts: Floats = alarm.window[alarm.loss, alarm.stream, :-1]
    return counts


def worst(found: list[Quorum]) -> Quorum:
    """Return the answer to all questions: agreed only if all are.

    >>> worst([Quorum.AGREED, Quorum.WAITING]).value
    'waiting'
    """
    return next((answer for answer in (Quorum.FAILED, Quorum.WAITING) if answer in found), Quorum.AGREED)


def is_pool_large(counts: Floats, table: SourceTable) -> bool:
    """Return whether sources that the configuration does not list gave half of the labels, or more."""
    pool = float(counts[table.other]) if table.listed else 0.0
    return pool > 0 and pool >= POOL_SHARE * float(counts.sum())


def left_out(counts: Floats, table: SourceTable) -> list[tuple[int, ...]]:
    """Return which sources are left out together, by their outcomes, shape (sources,).

    Without a list in the configuration each large one is, alone. With it, the pool of the others is one, however small;
    and listed ones are left out with it, alone and in pairs, only where another large listed one is left: what a pool
    shows or hides is worth nothing.

    >>> counts = np.array([50.0, 30.0, 20.0, 0.0])
    >>> left_out(counts, SourceTable(["a", "b", "c"]))
    [(0,), (1,), (2,)]
    >>> left_out(counts, SourceTable(["a", "b", "c"], listed=3))
    [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    >>> left_out(np.array([50.0, 30.0, 1.0]), SourceTable(["a", "b"], listed=2))
    [(2,), (0, 2), (1, 2)]
    """
    total = float(counts.sum())
    large = np.flatnonzero(counts >= SOURCE_SHARE * total).tolist() if total else []
    if not table.listed:
        return [(source,) for source in large] if len(large) > 1 else []
    listed = [source for source in large if source < table.listed]
    pool = (table.other,) if counts[table.other] > 0 else ()
    several = [group for size in (1, 2) if len(listed) > size for group in combinations(listed, size)]
    return [*([pool] if pool else []), *((*group, *pool) for group in several)]


def quorum_of(health: Health, alarm: Alarm, rules: Rules, table: SourceTable) -> Quorum:
    """Return whether the rise shows without each large label source as well."""
    if alarm.loss in rules.unlabelled:
        return Quorum.AGREED
    counts = source_shares(health, alarm)
    if is_pool_large(counts, table):
        return Quorum.FAILED
    groups = left_out(counts, table)
    if all(agrees_without(health, alarm, sources, rules, table) for sources in groups):
        return Quorum.AGREED
    return Quorum.FAILED if float(counts.sum()) >= max(2 * alarm.needed, QUORUM_LEAST) else Quorum.WAITING


def agrees_without(health: Health, alarm: Alarm, sources: tuple[int, ...], rules: Rules, table: SourceTable) -> bool:
    """Return whether the rise of the live version shows without some sources.

    A row of detectors leaves each one out. What is left without a listed source that gives most of the labels, or
    without two sources, is too little for such a row: there it is enough that the rest does not contradict.
    """
    leeway = leeway_of(source_shares(health, alarm), sources, table)
    if len(sources) == 1 and rise_without(health, alarm, sources[0], rules).agrees:
        return True
    return leeway > 0 and rest_without(health, alarm, sources, leeway).agrees


def leeway_of(counts: Floats, sources: tuple[int, ...], table: SourceTable) -> float:
    """Return how many standard errors what is left may be off: some where little is left, and more is not asked.

    That is without two sources, and without a listed one that gave most of the labels: its share is no fault.
    """
    most = sources[0] < table.listed and float(counts[sources[0]]) > POOL_SHARE * float(counts.sum())
    return Z_95 if len(sources) > 1 or most else 0.0


def rise_without(health: Health, alarm: Alarm, source: int, rules: Rules) -> Without:
    """Return the rise since the change point with one source left out, by the row that leaves it out."""
    losses = len(health.rows.banks)
    n = float(alarm.window[alarm.loss, alarm.stream].sum() - alarm.window[alarm.loss, alarm.stream, source])
    k = float(
        alarm.window[losses + alarm.loss, alarm.stream].sum() - alarm.window[losses + alarm.loss, alarm.stream, source]
    )
    row = health.rows.row(alarm.stream, source + 1) if health.rows.variants > 1 else health.rows.row(alarm.stream)
    bank = health.rows.banks[alarm.loss]
    learning = bool(bank.learning[row])
    # A row too thin for a baseline of its own is measured against that of the whole stream.
    base, _ = health.rows.baseline(alarm.loss, health.rows.row(alarm.stream) if learning else row)
    rise = k / n - base if n else 0.0
    evidence = rounded(float(bank.totals[row]))
    whole_n = float(alarm.window[alarm.loss, alarm.stream].sum())
    whole = float(alarm.window[losses + alarm.loss, alarm.stream].sum()) / whole_n - base if whole_n else 0.0
    by_evidence = alarm.detector == "e_detector"
    wanted = rules.worse_by if by_evidence else min(rules.worse_by, whole / 2)
    enough = learning or not by_evidence or evidence >= threshold_of(alarm.stream, rules) / 100
    return Without(n, rounded(rise), evidence, bool(enough and rise >= wanted and n > 0))


def rest_without(health: Health, alarm: Alarm, sources: tuple[int, ...], leeway: float = 0.0) -> Without:
    """Return the rise since the change point with some sources left out, each source measured by what is usual for it.

    It agrees if at least half of the whole rise is left, or may be: `leeway` is in standard errors. No row of detectors
    leaves them out, so there is no evidence.
    """
    losses = len(health.rows.banks)
    n, k = alarm.window[alarm.loss, alarm.stream], alarm.window[losses + alarm.loss, alarm.stream]
    overall, _ = health.rows.baseline(alarm.loss, health.rows.row(alarm.stream))
    known, lost = alarm.usual
    usual = np.where(known >= USUAL_LEAST, lost / np.maximum(known, 1.0), overall)
    left = np.ones(SOURCE_CELLS, np.bool_)
    left[list(sources)] = False
    excess, size, rest = k - n * usual, float(n.sum()), float(n[left].sum())
    whole = rounded(float(excess.sum()) / size) if size else 0.0
    rise = rounded(float(excess[left].sum()) / rest) if rest else 0.0
    mean = float(k[left].sum()) / rest if rest else 0.0
    error = leeway * math.sqrt(mean * (1 - mean) / max(rest, 1.0))
    return Without(rest, rise, None, rest > 0 and whole > 0 and rounded(rise + error) >= rounded(REST * whole))


def quorum_of_target(health: Health, alarms: list[Alarm], rules: Rules, table: SourceTable) -> Quorum:
    """Return whether one of the alarms of a target, a version that could be gone back to, shows without each source.

    As long as one may, nothing is known; if none does, its labels are suspect, and not the version.
    """
    found = []
    for alarm in alarms:
        counts = source_shares(health, alarm)
        if alarm.loss in rules.unlabelled:
            return Quorum.AGREED
        agreed = not is_pool_large(counts, table) and all(
            rest_without(health, alarm, sources, leeway_of(counts, sources, table)).agrees
            for sources in left_out(counts, table)
        )
        if agreed:
            return Quorum.AGREED
        found.append(Quorum.FAILED if float(counts.sum()) >= 2 * alarm.needed else Quorum.WAITING)
    return Quorum.WAITING if Quorum.WAITING in found else Quorum.FAILED


def quorum_of_lead(health: Health, target: Health, alarm: Alarm, rules: Rules, table: SourceTable) -> Quorum:
    """Return whether the target's lead over the live version shows without each large source of either's labels."""
    if alarm.loss in rules.unlabelled:
        return Quorum.AGREED
    counts, arms = source_shares(health, alarm), arms_since(health, target, alarm)
    theirs = arms[2, :-1]
    groups = dict.fromkeys([*left_out(counts, table), *left_out(theirs, table)])
    if all(lead_without(arms, sources, leeway_of(counts + theirs, sources, table)).agrees for sources in groups):
        return Quorum.AGREED
    return Quorum.FAILED if float(counts.sum()) >= max(2 * alarm.needed, QUORUM_LEAST) else Quorum.WAITING


def arms_since(health: Health, target: Health, alarm: Alarm) -> Floats:
    """Return what the live version and a target had in an alarm's stream since its change point, by source.

    Returns:
        Counts and losses of the live version, then of the target, shape (4, sources).
    """
    target.settle()
    losses, first = len(target.rows.banks), target.history.first_from(alarm.since)
    window = target.history.since(first, target.rows.streams, losses)
    kinds = [alarm.loss, losses + alarm.loss]
    theirs = window[kinds, alarm.stream] if alarm.stream < window.shape[1] else np.zeros((2, SOURCE_CELLS))
    return np.concatenate([alarm.window[kinds, alarm.stream], theirs])


def lead_without(arms: Floats, sources: tuple[int, ...], leeway: float = 0.0) -> Lead:
    """Return how much better the target was with some sources left out.

    It agrees if at least half is left, or may be: `leeway` is in standard errors.

    >>> arms = np.array([[100.0, 100.0], [30.0, 10.0], [50.0, 50.0], [5.0, 5.0]])
    >>> lead_without(arms, (0,)), lead_without(arms, (1,))
    (Lead(difference=0.0, agrees=False), Lead(difference=0.2, agrees=True))
    """
    whole, _ = _lead(arms)
    rest, error = _lead(np.delete(arms, sources, axis=1))
    if whole is None or whole <= 0:
        return Lead(rest, True)
    return Lead(rest, rest is not None and rounded(rest + leeway * error) >= rounded(REST * whole))


def _lead(arms: Floats) -> tuple[float | None, float]:
    """Return the difference of the mean losses and its standard error; None where one of the two has no outcomes."""
    n, k, other_n, other_k = arms.sum(axis=1).tolist()
    if not n or not other_n:
        return None, 0.0
    mean, other = k / n, other_k / other_n
    error = math.sqrt(mean * (1 - mean) / n + other * (1 - other) / other_n)
    return rounded(mean - other), error
