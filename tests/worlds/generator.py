"""Make recordings of a model fleet: predictions, late feedback and deployments, in arrival order.

Version v41 serves first. From `switch_at` on v42 serves live and v41 keeps a holdback. Every fact of the world (who
served, was it wrong, when did the label come, who reported it) is drawn as one array and stays beside the lines, so
that a test can compare what the monitor says with what is true.

The error of a prediction is drawn from its score, so scores are calibrated while the world is calm. After
`change_at` extra errors hit right predictions whatever their score: the model goes on being as sure of itself as
before, which is what a silent decay looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
START_MS = 1_772_409_600_000  # 2026-03-02T00:00:00Z, a midnight, so that nightly exports fall at night.

VERSIONS = ("v41", "v42")
COUNTRIES = ("DE", "FR", "US", "GB", "ES", "BR")
COUNTRY_SHARES = (0.33, 0.23, 0.18, 0.13, 0.08, 0.05)
CHANNELS = ("web", "app", "shop")
CHANNEL_SHARES = (0.55, 0.3, 0.15)
CHANNEL_FACTORS = (0.95, 1.0, 1.18333)  # Their mean under the shares is 1: a channel moves the error, not the average.
SOURCES = ("chargebacks", "analysts", "customers")
SOURCE_SHARES = (0.5, 0.3, 0.2)
POSITIVE_SHARE = 0.3
CONCENTRATION = 3.0  # Of the beta law of unsureness; low enough that some scores are near .5.
LATENCY_SIGMA = 0.3
RFC3339_EVERY = 41  # Each so many-th prediction writes its time as text, which the contract allows.

PREDICTION, FEEDBACK, DEPLOYMENT = 0, 1, 2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Six = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Labels:
    """Say when and how truth comes back.

    Times are milliseconds, shares are fractions. `wrong_slower` multiplies the delay of labels of wrong
    predictions. `nightly` replaces the delays by one export after each midnight, sorted by truth. `outage` is a
    span (fractions of the recording) without feedback; its labels come together at its end, or never if
    `outage_loses`. `bad_news` keeps every label of a negative back, as chargebacks do. `share_after` is (fraction
    of the span, share): from there on another share of the predictions gets a label. `liar` is (source,
    probability): from the change on that source calls a right prediction of v42 wrong with that probability.
    """

    median_ms: float = 10 * MINUTE_MS
    sigma: float = 0.8
    share: float = 0.97
    wrong_slower: float = 1.0
    nightly: bool = False
    outage: tuple[float, float] | None = None
    outage_loses: bool = False
    share_after: tuple[float, float] | None = None
    liar: tuple[str, float] | None = None
    bad_news: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Describe one recording; equal worlds give equal bytes.

    `errors_*` is the error rate per country before the change, `rise_*` what the change adds; `shares_after` the
    countries' shares after it. `switch_at`, `change_at` and `ramp` are fractions of the span; a ramp of 0 is a
    step. `switch_at` 0 means that v42 is the first version ever. `latency_ms` is the median time an answer takes, if it
    is told at all; the change multiplies v42's by `slower`, in the country `slower_in` or everywhere. Without a
    holdback v41 is told to be retired if `retires`. `reference` is the mean zero-one loss that v42's deployment states.
    """

    seed: int
    lines: int
    span_ms: int
    errors_v41: Six
    errors_v42: Six
    rise_v41: Six = (0.0,) * 6
    rise_v42: Six = (0.0,) * 6
    shares: Six = COUNTRY_SHARES
    shares_after: Six | None = None
    switch_at: float = 0.25
    change_at: float = 0.5
    ramp: float = 0.0
    holdback: float = 0.1
    latency_ms: float | None = None
    slower: float = 1.0
    slower_in: str | None = None
    retires: bool = True
    reference: float | None = None
    model: str = "fraud"
    labels: Labels = Labels()

    def at(self, part: float) -> int:
        """Return the time at a fraction of the span."""
        return START_MS + int(self.span_ms * part)

    @property
    def switch_ms(self) -> int:
        """Return when v42 goes live."""
        return self.at(self.switch_at)

    @property
    def change_ms(self) -> int:
        """Return when the change begins; a healthy world has one too, in which nothing happens."""
        return self.at(self.change_at)

    @property
    def end_ms(self) -> int:
        """Return when the recording ends; labels that would come later are not in it."""
        return START_MS + self.span_ms


@dataclass(frozen=True, slots=True)
class Facts:
    """Hold what is true of each prediction: arrays of equal length, in order of prediction time.

    `label_ts` is -1 where no label reached the recording; `reported` is the truth as the source told it.
    """

    ts: Ints
    version: Ints
    holdback: Bools
    country: Ints
    channel: Ints
    score: Floats
    output: Ints
    truth: Ints
    source: Ints
    label_ts: Ints
    reported: Ints
    latency_ms: Floats


@dataclass(frozen=True, slots=True)
class Recording:
    """Hold the lines in arrival order, each line's kind and time, and the facts behind them."""

    world: World
    lines: list[bytes]
    kinds: Ints
    ts: Ints
    facts: Facts

    def to_bytes(self) -> bytes:
        """Return the recording as NDJSON."""
        return b"\n".join(self.lines) + b"\n"


def prediction_id(index: int) -> str:
    """Return a unique id that says nothing about order (multiplication by an odd number permutes 32-bit integers).

    >>> prediction_id(0), prediction_id(1)
    ('p-00000000', 'p-9e3779b1')
    """
    return f"p-{(index * 2_654_435_761) & 0xFFFFFFFF:08x}"


def generate(world: World) -> Recording:
    """Draw the world and write it down.

    >>> same = World(seed=1, lines=200, span_ms=HOUR_MS, errors_v41=(.1,) * 6, errors_v42=(.1,) * 6)
    >>> generate(same).to_bytes() == generate(same).to_bytes()
    True
    """
    facts = draw(world)
    texts, kinds, times = _written(world, facts)
    # A prediction that shares its millisecond with a label comes first, and deployments before both.
    order = np.lexsort((np.where(kinds == DEPLOYMENT, -1, kinds), times))
    lines = [texts[i] for i in order.tolist()]
    return Recording(world=world, lines=lines, kinds=kinds[order], ts=times[order], facts=facts)


def draw(world: World) -> Facts:
    """Draw every prediction and its label."""
    rng = np.random.default_rng(world.seed)
    n = int(world.lines / (1 + world.labels.share))
    ts = START_MS + 1 + np.sort(rng.integers(0, world.span_ms, n))
    changed = _changed(world, ts)
    country = _countries(world, rng, changed)
    channel = rng.choice(len(CHANNELS), n, p=CHANNEL_SHARES)
    candidate = ts >= world.switch_ms
    holdback = candidate & (rng.random(n) < world.holdback)
    version = (candidate & ~holdback).astype(np.int64)

    base = np.array((world.errors_v41, world.errors_v42))[version, country] * np.array(CHANNEL_FACTORS)[channel]
    rise = np.array((world.rise_v41, world.rise_v42))[version, country] * changed
    unsure = 0.5 * rng.beta(2 * base * CONCENTRATION, (1 - 2 * base) * CONCENTRATION)
    wrong = rng.random(n) < unsure
    chance = rng.random(n)
    wrong = np.where(rise >= 0, wrong | (chance < rise / (1 - base)), wrong & (chance < 1 + rise / base))
    output = (rng.random(n) < POSITIVE_SHARE).astype(np.int64)
    score = np.round(np.where(output == 1, 1 - unsure, unsure), 4)
    truth = np.where(wrong, 1 - output, output)

    source = rng.choice(len(SOURCES), n, p=SOURCE_SHARES)
    reported = _reported(world, rng, source, version, changed, output, truth)
    label_ts = _label_times(world, rng, ts, wrong, truth)
    return Facts(
        ts,
        version,
        holdback,
        country,
        channel,
        score,
        output,
        truth,
        source,
        label_ts,
        reported,
        _latencies(world, version, country, changed),
    )


def _changed(world: World, ts: Ints) -> Floats:
    """Return how far the change has come for each prediction: 0 before, 1 after, a line in between."""
    if world.ramp == 0:
        return (ts >= world.change_ms).astype(np.float64)
    return np.clip((ts - world.change_ms) / (world.span_ms * world.ramp), 0.0, 1.0)


def _countries(world: World, rng: np.random.Generator, changed: Floats) -> Ints:
    n = len(changed)
    before = rng.choice(len(COUNTRIES), n, p=world.shares)
    if world.shares_after is None:
        return before
    after = rng.choice(len(COUNTRIES), n, p=world.shares_after)
    return np.where(rng.random(n) < changed, after, before)


def _reported(
    world: World, rng: np.random.Generator, source: Ints, version: Ints, changed: Floats, output: Ints, truth: Ints
) -> Ints:
    """Return the truth as told: a liar turns labels that speak well of v42."""
    if world.labels.liar is None:
        return truth
    name, probability = world.labels.liar
    lies = (source == SOURCES.index(name)) & (version == 1) & (output == truth)
    lies &= rng.random(len(truth)) < probability * changed
    return np.where(lies, 1 - truth, truth)


def _label_times(world: World, rng: np.random.Generator, ts: Ints, wrong: Bools, truth: Ints) -> Ints:
    """Return when each label arrives, or -1 if it never does within the recording."""
    labels, n = world.labels, len(ts)
    share = np.full(n, labels.share)
    if labels.share_after is not None:
        share[ts >= world.at(labels.share_after[0])] = labels.share_after[1]
    missing = rng.random(n) >= share
    if labels.bad_news:
        missing |= truth == 0
    delay = labels.median_ms * np.exp(labels.sigma * rng.standard_normal(n))
    delay *= np.where(wrong, labels.wrong_slower, 1.0)
    arrival = ts + 1 + delay.astype(np.int64)
    if labels.nightly:
        arrival = _nightly(rng, ts, truth)
    if labels.outage is not None:
        first, last = world.at(labels.outage[0]), world.at(labels.outage[1])
        inside = (arrival >= first) & (arrival < last)
        if labels.outage_loses:
            missing |= inside
        # The backlog drains in its own order within ten minutes.
        drained = last + (arrival - first) * 10 * MINUTE_MS // max(1, last - first)
        arrival = np.where(inside, drained, arrival)
    return np.where(missing | (arrival > world.end_ms), -1, arrival)


def _latencies(world: World, version: Ints, country: Ints, changed: Floats) -> Floats:
    """Return how long each answer took; drawn apart, so that a world without latencies stays the same to the byte."""
    rng = np.random.default_rng((world.seed, 1))
    slower = (version == 1) & (changed == 1)
    if world.slower_in is not None:
        slower &= country == COUNTRIES.index(world.slower_in)
    median = (world.latency_ms or 0.0) * np.where(slower, world.slower, 1.0)
    return np.round(median * np.exp(LATENCY_SIGMA * rng.standard_normal(len(version))), 2)


def _nightly(rng: np.random.Generator, ts: Ints, truth: Ints) -> Ints:
    """Return arrivals of labels exported between 01:00 and 01:20 of the next day, positives before negatives."""
    arrival = np.empty_like(ts)
    day = (ts - START_MS) // DAY_MS
    for today in np.unique(day).tolist():
        rows = np.flatnonzero(day == today)
        rows = rows[np.lexsort((rng.random(len(rows)), -truth[rows]))]
        start = START_MS + (today + 1) * DAY_MS + HOUR_MS
        arrival[rows] = start + np.arange(len(rows)) * 20 * MINUTE_MS // len(rows)
    return arrival


def _written(world: World, facts: Facts) -> tuple[list[bytes], Ints, Ints]:
    """Return all lines, still unordered, with their kinds and times."""
    deployments = _deployments(world)
    predictions = _prediction_lines(world, facts)
    rows = np.flatnonzero(facts.label_ts >= 0)
    feedback = _feedback_lines(world, facts, rows)
    kinds = np.repeat((DEPLOYMENT, PREDICTION, FEEDBACK), (len(deployments), len(predictions), len(feedback)))
    times = np.concatenate(([ts for ts, _ in deployments], facts.ts, facts.label_ts[rows])).astype(np.int64)
    return [line for _, line in deployments] + predictions + feedback, kinds, times


def _deployments(world: World) -> list[tuple[int, bytes]]:
    def line(ts: int, version: str, status: str, **more: Any) -> tuple[int, bytes]:
        event = {"type": "deployment", "model": world.model, "version": version, "status": status, "ts": ts} | more
        return ts, orjson.dumps(event)

    if world.switch_at == 0:
        first = [line(START_MS, "v42", "live")]
        return first if world.holdback == 0 else [*first, line(START_MS, "v41", "holdback")]
    stated = {} if world.reference is None else {"reference": {"zero_one": {"mean": world.reference, "n": 5_000}}}
    events = [line(START_MS, "v41", "live"), line(world.switch_ms, "v42", "live", previous="v41", **stated)]
    if world.holdback > 0:
        return [*events, line(world.switch_ms, "v41", "holdback")]
    return [*events, line(world.switch_ms, "v41", "retired")] if world.retires else events


def _prediction_lines(world: World, facts: Facts) -> list[bytes]:
    dumps, model = orjson.dumps, world.model
    roles = ("live", "holdback")
    who = (facts.ts, facts.version, facts.holdback, facts.country, facts.channel)
    columns = (*who, facts.score, facts.output, facts.latency_ms)
    return [
        dumps(
            {
                "type": "prediction",
                "id": prediction_id(i),
                "ts": rfc3339(ts, i) if i % RFC3339_EVERY == 0 else ts,
                "model": model,
                "version": VERSIONS[version],
                "output": output,
                "score": score,
                "role": roles[held],
                "slices": {"country": COUNTRIES[country], "channel": CHANNELS[channel]},
                "replica": f"r{i % 6}",
            }
            | ({} if world.latency_ms is None else {"latency_ms": took})
        )
        for i, (ts, version, held, country, channel, score, output, took) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        )
    ]


def _feedback_lines(world: World, facts: Facts, rows: Ints) -> list[bytes]:
    """Write labels; every second one names its model, since the contract leaves that open."""
    dumps = orjson.dumps
    named = {"model": world.model}
    columns = (rows, facts.label_ts[rows], facts.reported[rows], facts.source[rows])
    return [
        dumps(
            {"type": "feedback", "id": prediction_id(i), "ts": ts, "truth": truth, "source": SOURCES[source]}
            | (named if i % 2 else {})
        )
        for i, ts, truth, source in zip(*(column.tolist() for column in columns), strict=True)
    ]


def rfc3339(ts_ms: int, turn: int) -> str:
    """Return a time as RFC 3339 text with milliseconds, now in UTC, now an hour ahead.

    >>> rfc3339(1_772_409_600_123, 0), rfc3339(1_772_409_600_123, 1)
    ('2026-03-02T00:00:00.123Z', '2026-03-02T01:00:00.123+01:00')
    """
    moment = datetime.fromtimestamp(ts_ms // 1000, UTC) + timedelta(milliseconds=ts_ms % 1000)
    if turn % 2 == 0:
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return moment.astimezone(timezone(timedelta(hours=1))).isoformat(timespec="milliseconds")
