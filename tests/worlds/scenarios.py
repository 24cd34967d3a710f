"""Name the situations in which the monitor must act, and those in which it must not.

A scenario is a world, a configuration and what has to come out. How soon an act may be asked for follows from the world
itself: the deadline is a multiple of the outcomes that the likelihood ratios of the two error rates need to reach the
thresholds the configuration promises, so a change of a rate, a share or a promise moves the deadline with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from typing import Any

from tests.worlds.expectations import Expect
from tests.worlds.generator import (
    COUNTRIES,
    COUNTRY_SHARES,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SOURCE_SHARES,
    SOURCES,
    Labels,
    Six,
    World,
)

FULL_LINES = 230_000
FULL_SPAN_MS = DAY_MS
SHORTEST_SPAN_MS = 8 * HOUR_MS
SLICE_CAP = 50
# Mixtures pay for not knowing the rates, blocks for their size, and chance has a spread: thrice the ideal is "soon".
SLACK = 3.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold what the configuration of a scenario varies; times are milliseconds."""

    mode: str = "act"
    mature_ms: int = HOUR_MS
    horizon: str = "1d"
    worse_by: float = 0.02
    promise: int = 1_000_000
    detectors: tuple[str, ...] = ("e_detector", "adwin", "page_hinkley")
    losses: tuple[str, ...] = ("zero_one", "brier")
    missing: str = "ignore"
    without_control: str = "propose"
    confirm_within: str = "1d"

    def to_yaml(self, model: str) -> str:
        """Return the text of `unship.yaml`."""
        return f"""\
log: embedded:./unship-data
models:
  {model}:
    target: {{kind: binary}}
    losses: [{", ".join(self.losses)}]
    labels: {{horizon: {self.horizon}, mature_after: {self.mature_ms // 1000}s, missing: {self.missing}}}
    slices: {{by: [country, channel], cap: {SLICE_CAP}}}
    worse_by: {self.worse_by}
    one_false_alarm_per: {self.promise}
    detectors: [{", ".join(self.detectors)}]
    policy: {{mode: {self.mode}, without_control: {self.without_control}, confirm_within: {self.confirm_within}}}
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Join a world, the configuration under which it is watched, and the expected result."""

    world: World
    settings: Settings
    expect: Expect

    @property
    def config(self) -> str:
        """Return the text of the scenario's `unship.yaml`."""
        return self.settings.to_yaml(self.world.model)


# How soon can it be known?


def divergence(p: float, q: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli(p) from Bernoulli(q), in nats.

    >>> round(divergence(.16, .10), 5)
    0.01725
    """
    return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q))


def predictions_needed(
    settings: Settings,
    before: float,
    after: float,
    target: float,
    holdback: float,
    share: float = 1.0,
    sliced: bool = False,
) -> float:
    """Return about how many predictions after a change all evidence for a rollback needs, if nothing were lost.

    The slowest of three decides: the alarm itself, the alarm without the largest label source (at a hundredth of its
    threshold), and the comparison of the candidate with the target, whose likelihood ratio is that of two rates against
    their common mean. `share` is the part of the traffic that carries the change; a slice's threshold is higher, for it
    shares its half of the promise with `cap` others.
    """
    weight = 1 / (4 * SLICE_CAP) if sliced else 1 / 4
    alarm = divergence(after, before + settings.worse_by) * share * (1 - holdback)
    needs = [log(settings.promise / weight) / alarm]
    needs.append(log(settings.promise / weight / 100) / (alarm * (1 - max(SOURCE_SHARES))))
    if holdback > 0:
        mean = (1 - holdback) * after + holdback * target
        compared = ((1 - holdback) * divergence(after, mean) + holdback * divergence(target, mean)) * share
        needs.append(log(settings.promise / (weight if sliced else 1)) / compared)
    return max(needs)


def deadline_ms(world: World, settings: Settings, predictions: float) -> int:
    """Return the last moment at which an act on that much evidence still is soon."""
    rate = world.lines / (1 + world.labels.share) / world.span_ms
    cohorts = 2 * max(1000, settings.mature_ms // 20)
    return world.change_ms + int(world.span_ms * world.ramp + SLACK * predictions / rate) + settings.mature_ms + cohorts


def _mean(values: Six, shares: Six = COUNTRY_SHARES) -> float:
    return sum(value * share for value, share in zip(values, shares, strict=True))


# The worlds


def _same(value: float) -> Six:
    return (value,) * 6


def _only(country: str, value: float, other: float = 0.0) -> Six:
    a, b, c, d, e, f = (value if name == country else other for name in COUNTRIES)
    return (a, b, c, d, e, f)


def _span(lines: int) -> int:
    """Return the span that keeps the traffic of the full size, but not less than a working day."""
    return max(SHORTEST_SPAN_MS, FULL_SPAN_MS * lines // FULL_LINES)


def _usual(lines: int) -> Settings:
    """Return the usual settings, with a promise that a recording of this length leaves room to keep and still act."""
    return Settings(promise=1_000_000 if lines >= 150_000 else 100_000)


def _world(seed: int, lines: int, **more: Any) -> World:
    """Return the usual world: v42 goes live after a fifth of the time, something may change after two fifths."""
    usual: dict[str, Any] = {
        "errors_v41": _same(0.08),
        "errors_v42": _same(0.08),
        "span_ms": _span(lines),
        "switch_at": 0.2,
        "change_at": 0.4,
    }
    return World(seed=seed, lines=lines, **(usual | more))


def _expected(world: World, settings: Settings, predictions: float, **more: Any) -> Expect:
    """Expect something between the change and the moment by which that many predictions make it soon."""
    usual: dict[str, Any] = {
        "not_before_ms": world.change_ms,
        "not_after_ms": deadline_ms(world, settings, predictions),
        "calm_until_ms": world.change_ms,
    }
    return Expect(**(usual | more))


def _decay(
    seed: int,
    lines: int,
    settings: Settings,
    *,
    base: float = 0.08,
    rise: float = 0.08,
    expect: dict[str, Any],
    **more: Any,
) -> Scenario:
    """Build a decay of v42 in every slice, for which v42 has to go."""
    world = _world(seed, lines, errors_v41=_same(base), errors_v42=_same(base), rise_v42=_same(rise), **more)
    needed = predictions_needed(settings, base, base + rise, base, world.holdback)
    return Scenario(world, settings, _expected(world, settings, needed, **({"act": "rollback"} | expect)))


def decay(seed: int, lines: int) -> Scenario:
    """v42 errs twice as often from one moment on."""
    return _decay(seed, lines, _usual(lines), expect={})


def decay_at_once(seed: int, lines: int) -> Scenario:
    """The same decay while outcomes count on arrival."""
    return _decay(seed, lines, replace(_usual(lines), mature_ms=0), expect={})


def decay_loose(seed: int, lines: int) -> Scenario:
    """The same decay under a promise of one false alarm per 10,000 outcomes."""
    return _decay(seed, lines, replace(_usual(lines), promise=10_000), expect={})


def decay_ramp(seed: int, lines: int) -> Scenario:
    """v42 gets worse bit by bit."""
    return _decay(seed, lines, _usual(lines), ramp=0.1, expect={})


def decay_slow(seed: int, lines: int) -> Scenario:
    """v42's error rises from 5 % to 7.5 %: it takes many outcomes to know, and a fifth of the traffic held back."""
    settings = replace(_usual(lines), worse_by=0.005)
    return _decay(seed, lines, settings, base=0.05, rise=0.025, holdback=0.2, switch_at=0.15, change_at=0.3, expect={})


def observe(seed: int, lines: int) -> Scenario:
    """A decay while the monitor only watches."""
    return _decay(seed, lines, replace(_usual(lines), mode="observe"), expect={"act": "observe"})


def approve(seed: int, lines: int) -> Scenario:
    """A decay while a person has the last word."""
    return _decay(seed, lines, replace(_usual(lines), mode="approve"), expect={"act": "propose"})


def _other_first(seed: int, lines: int, *detectors: str) -> Scenario:
    """Let a detector decide that promises nothing: before the change it may doubt, never act.

    A doubt without any rise may be explained as a change of mix, since nothing within the slices has risen.
    """
    settings = replace(_usual(lines), detectors=detectors)
    return _decay(
        seed, lines, settings, rise=0.12, expect={"calm_until_ms": 0, "pages": ("MIX_SHIFT", "NOT_CONFIRMED")}
    )


def adwin_first(seed: int, lines: int) -> Scenario:
    """ADWIN decides."""
    return _other_first(seed, lines, "adwin", "e_detector", "page_hinkley")


def page_hinkley_first(seed: int, lines: int) -> Scenario:
    """Page-Hinkley decides."""
    return _other_first(seed, lines, "page_hinkley", "e_detector", "adwin")


def no_baseline(seed: int, lines: int) -> Scenario:
    """v42 is the first version that ever served; v41 is known from its holdback only."""
    return _decay(seed, lines, _usual(lines), switch_at=0.0, expect={})


def no_holdback(seed: int, lines: int) -> Scenario:
    """v42 decays and nothing else serves: v41 was better when it served, which is worth a proposal."""
    return _decay(seed, lines, _usual(lines), holdback=0.0, retires=False, expect={"act": "propose"})


def no_holdback_act(seed: int, lines: int) -> Scenario:
    """The same, where its owner has said that the past is proof enough."""
    settings = replace(_usual(lines), without_control="act")
    return _decay(seed, lines, settings, holdback=0.0, retires=False, expect={"act": "rollback"})


def no_holdback_page(seed: int, lines: int) -> Scenario:
    """The same, where its owner wants a person to look first."""
    more = {"act": None, "pages": ("RECORD_BETTER",), "page_required": True, "names": ("record", "v41")}
    settings = replace(_usual(lines), without_control="page")
    return _decay(seed, lines, settings, holdback=0.0, retires=False, expect=more)


def no_target(seed: int, lines: int) -> Scenario:
    """v42 decays, and v41 is retired: there is nothing to go back to."""
    more = {"act": None, "pages": ("TARGET_UNKNOWN",), "page_required": True}
    return _decay(seed, lines, _usual(lines), holdback=0.0, expect=more)


def no_record(seed: int, lines: int) -> Scenario:
    """v42 is the first version that ever served, and nothing answers beside it."""
    more = {"act": None, "pages": ("TARGET_UNKNOWN",), "page_required": True}
    return _decay(seed, lines, _usual(lines), holdback=0.0, switch_at=0.0, expect=more)


def record_no_better(seed: int, lines: int) -> Scenario:
    """v42 falls from what its makers measured to what v41 always was: going back would win nothing."""
    settings = replace(_usual(lines), losses=("zero_one",), confirm_within="30m")
    before, after = 0.06, 0.16
    errors = {"errors_v41": _same(after), "errors_v42": _same(before), "rise_v42": _same(after - before)}
    world = _world(seed, lines, **errors, holdback=0.0, retires=False, reference=before)
    needed = predictions_needed(settings, before, after, before, 0.0)
    expect = _expected(world, settings, needed, pages=("NOT_CONFIRMED",), page_required=True)
    return Scenario(world, settings, replace(expect, not_after_ms=expect.not_after_ms + 30 * MINUTE_MS))


def record_mix(seed: int, lines: int) -> Scenario:
    """The hard country grows and nobody got worse: on the mix of today v41 was as bad, though its record looks good."""
    made = _mix_alone(seed, lines, holdback=0.0, retires=False)
    settings = replace(made.settings, without_control="act")
    return Scenario(made.world, settings, made.expect)


def slice_decay_alone(seed: int, lines: int) -> Scenario:
    """v42 decays in one country, and nothing else serves: in that country v41 was better."""
    made = slice_decay(seed, lines)
    world = replace(made.world, holdback=0.0, retires=False)
    return Scenario(world, made.settings, replace(made.expect, act="propose"))


def no_change_alone(seed: int, lines: int) -> Scenario:
    """Nothing happens, and nothing answers beside the live version."""
    settings = replace(_usual(lines), without_control="act")
    return Scenario(_world(seed, lines, holdback=0.0, retires=False), settings, Expect())


def slice_decay(seed: int, lines: int) -> Scenario:
    """v42 decays in one country whose traffic is too small to move the whole by what matters."""
    base, rise, share, settings = 0.07, 0.25, COUNTRY_SHARES[COUNTRIES.index("ES")], _usual(lines)
    errors = {"errors_v41": _same(base), "errors_v42": _same(base), "rise_v42": _only("ES", rise)}
    world = _world(seed, lines, **errors, holdback=0.15, switch_at=0.15, change_at=0.3)
    needed = predictions_needed(settings, base, base + rise, base, world.holdback, share, sliced=True)
    return Scenario(world, settings, _expected(world, settings, needed, act="rollback", slice={"country": "ES"}))


def both_bad(seed: int, lines: int) -> Scenario:
    """The world changes, and both versions err more often."""
    rise, settings = 0.12, _usual(lines)
    world = _world(seed, lines, rise_v41=_same(rise), rise_v42=_same(rise))
    alarm = log(settings.promise * 4) / divergence(0.08 + rise, 0.08 + settings.worse_by) / world.holdback
    pages = ("ALL_DEGRADED", "NOT_CONFIRMED")
    return Scenario(world, settings, _expected(world, settings, alarm, pages=pages, page_required=True))


# A country in which every version errs often, and whose share grows.
HARD, HARD_ERROR, EASY_ERROR = "BR", 0.30, 0.06
HARD_BEFORE: Six = (0.34, 0.23, 0.18, 0.14, 0.08, 0.03)
HARD_AFTER: Six = (0.2, 0.14, 0.11, 0.09, 0.06, 0.4)


def _mix(seed: int, lines: int, rise: float, **more: Any) -> tuple[World, float, float]:
    errors = _only(HARD, HARD_ERROR, EASY_ERROR)
    world = _world(
        seed,
        lines,
        errors_v41=errors,
        errors_v42=errors,
        rise_v42=_same(rise),
        shares=HARD_BEFORE,
        shares_after=HARD_AFTER,
        **more,
    )
    return world, _mean(errors, HARD_BEFORE), _mean(errors, HARD_AFTER)


def mix_shift(seed: int, lines: int) -> Scenario:
    """A hard country grows from 3 % to 40 % of the traffic; nobody got worse."""
    return _mix_alone(seed, lines)


def mix_ramp(seed: int, lines: int) -> Scenario:
    """The hard country grows bit by bit."""
    return _mix_alone(seed, lines, ramp=0.1)


def _mix_alone(seed: int, lines: int, **more: Any) -> Scenario:
    world, before, after = _mix(seed, lines, 0.0, **more)
    settings = _usual(lines)
    # The alarm is quick; what takes time is that the bound of the part within the values falls under half of the rise.
    needed = predictions_needed(settings, before, after, before, 0.0) + 64 * before / ((after - before) / 2) ** 2
    wanted = {"pages": ("MIX_SHIFT",), "page_required": True, "names": ("country", HARD)}
    return Scenario(world, settings, _expected(world, settings, needed, **wanted))


def mix_and_decay(seed: int, lines: int) -> Scenario:
    """The hard country grows while v42 gets worse everywhere."""
    rise, settings = 0.15, _usual(lines)
    world, before, after = _mix(seed, lines, rise)
    needed = predictions_needed(settings, before, after + rise, after, world.holdback)
    return Scenario(world, settings, _expected(world, settings, needed, act="rollback", pages=("MIX_SHIFT",)))


def poison(seed: int, lines: int) -> Scenario:
    """One source, three labels in ten, calls half of v42's right predictions wrong."""
    liar, lie, settings = "analysts", 0.5, _usual(lines)
    world = _world(seed, lines, labels=Labels(liar=(liar, lie)))
    seen = 0.08 + SOURCE_SHARES[SOURCES.index(liar)] * 0.92 * lie
    # After the comparison the monitor gives the other sources twice the alarm's outcomes, and at least 1,000, to agree.
    needed = predictions_needed(settings, 0.08, seen, 0.08, world.holdback) + 2_000
    wanted = {"pages": ("LABEL_SOURCE_SUSPECT",), "page_required": True}
    return Scenario(world, settings, _expected(world, settings, needed, **wanted))


def label_outage(seed: int, lines: int) -> Scenario:
    """No feedback for a quarter of the time, then all of it at once."""
    return _outage(seed, lines, loses=False)


def label_loss(seed: int, lines: int) -> Scenario:
    """No feedback for a quarter of the time, and that part never comes."""
    return _outage(seed, lines, loses=True)


def _outage(seed: int, lines: int, *, loses: bool) -> Scenario:
    first, last = 0.5, 0.75
    settings = _usual(lines)
    world = _world(seed, lines, labels=Labels(outage=(first, last), outage_loses=loses))
    start = world.at(first)
    # Twenty cohorts without a label are blindness by definition; ten more leave room for the last labelled ones.
    latest = start + settings.mature_ms + 30 * settings.mature_ms // 20
    return Scenario(
        world,
        settings,
        Expect(
            pages=("COVERAGE_SHIFT", "BLIND"),
            page_required=True,
            not_before_ms=start,
            not_after_ms=latest,
        ),
    )


def coverage_drop(seed: int, lines: int) -> Scenario:
    """Fewer predictions get a label from one moment on; that becomes usual, and a later decay is found all the same."""
    settings = replace(_usual(lines), mature_ms=20 * MINUTE_MS)
    labels = Labels(median_ms=2 * MINUTE_MS, sigma=0.5, share_after=(0.25, 0.6))
    more: dict[str, Any] = {"change_at": 0.65, "span_ms": FULL_SPAN_MS, "labels": labels}
    return _decay(seed, lines, settings, rise=0.12, expect={"pages": ("COVERAGE_SHIFT",)}, **more)


def implausible_reference(seed: int, lines: int) -> Scenario:
    """The deployment states a mean loss so bad that no decay would ever reach it."""
    settings = replace(_usual(lines), losses=("zero_one",))
    return _decay(seed, lines, settings, reference=0.25, expect={})


def late_labels(seed: int, lines: int) -> Scenario:
    """Labels of wrong predictions come five times slower, though nearly all within maturity."""
    labels = Labels(median_ms=3 * MINUTE_MS, sigma=0.5, wrong_slower=5.0)
    return Scenario(_world(seed, lines, labels=labels), _usual(lines), Expect())


def nightly(seed: int, lines: int) -> Scenario:
    """Labels come once a night, positives first."""
    world = _world(seed, lines, span_ms=5 * DAY_MS, switch_at=0.45, labels=Labels(nightly=True))
    return Scenario(world, replace(_usual(lines), mature_ms=26 * HOUR_MS, horizon="3d"), Expect())


def no_change(seed: int, lines: int) -> Scenario:
    """Nothing happens."""
    return Scenario(_world(seed, lines), _usual(lines), Expect())


def no_change_at_once(seed: int, lines: int) -> Scenario:
    """Nothing happens, and outcomes count on arrival."""
    return Scenario(_world(seed, lines), replace(_usual(lines), mature_ms=0), Expect())


def improvement(seed: int, lines: int) -> Scenario:
    """v42 gets better."""
    errors = _same(0.12)
    return Scenario(
        _world(seed, lines, errors_v41=errors, errors_v42=errors, rise_v42=_same(-0.07)), _usual(lines), Expect()
    )


def _chargebacks(lines: int) -> Settings:
    return replace(_usual(lines), missing="negative")


def chargebacks(seed: int, lines: int) -> Scenario:
    """Only positives are ever told, later; v42 begins to err on them."""
    return _decay(seed, lines, _chargebacks(lines), labels=Labels(bad_news=True), expect={})


def chargebacks_calm(seed: int, lines: int) -> Scenario:
    """Only positives are ever told, and nothing happens."""
    return Scenario(_world(seed, lines, labels=Labels(bad_news=True)), _chargebacks(lines), Expect())


def chargebacks_end(seed: int, lines: int) -> Scenario:
    """From half of the time on no positive is told any more: that is no news of the model, good or bad.

    Labels of the last minutes before are lost in part, which looks like errors for a moment; both versions have them.
    """
    world = _world(seed, lines, labels=Labels(bad_news=True, outage=(0.5, 1.0), outage_loses=True))
    settings = _chargebacks(lines)
    start = world.at(0.5)
    latest = start + settings.mature_ms + 30 * settings.mature_ms // 20
    pages = ("COVERAGE_SHIFT", "BLIND")
    expect = Expect(
        pages=pages,
        page_required=True,
        not_before_ms=start,
        not_after_ms=latest,
        calm_until_ms=start,
    )
    return Scenario(world, settings, expect)


OBJECTIVE_MS, MEDIAN_MS, SLOWER = 200, 120.0, 1.5
LATENCY = f"{{latency: {{objective_ms: {OBJECTIVE_MS}}}}}"
#: Shares of answers over the objective, before and after: a logarithmic normal law with that median and LATENCY_SIGMA.
SELDOM, OFTEN = 0.044, 0.363


def slow(seed: int, lines: int) -> Scenario:
    """v42 answers as well as before, but takes half as long again."""
    settings = replace(_usual(lines), losses=("zero_one", LATENCY))
    world = _world(seed, lines, latency_ms=MEDIAN_MS, slower=SLOWER)
    needed = predictions_needed(settings, SELDOM, OFTEN, SELDOM, world.holdback)
    return Scenario(world, settings, _expected(world, settings, needed, act="rollback"))


def slow_in_one_country(seed: int, lines: int) -> Scenario:
    """v42 gets slow in one country; latency is all that is judged, on arrival, and labels play no part."""
    # All requests together get slower by less than what matters.
    settings = replace(_usual(lines), losses=(LATENCY,), mature_ms=0, worse_by=0.03)
    world = _world(seed, lines, latency_ms=MEDIAN_MS, slower=SLOWER, slower_in="ES", holdback=0.15)
    share = COUNTRY_SHARES[COUNTRIES.index("ES")]
    needed = predictions_needed(settings, SELDOM, OFTEN, SELDOM, world.holdback, share, sliced=True)
    return Scenario(world, settings, _expected(world, settings, needed, act="rollback", slice={"country": "ES"}))


def fast(seed: int, lines: int) -> Scenario:
    """Latency is all that is judged, and nothing happens."""
    return Scenario(_world(seed, lines, latency_ms=MEDIAN_MS), replace(_usual(lines), losses=(LATENCY,)), Expect())


SCENARIOS: dict[str, Callable[[int, int], Scenario]] = {
    build.__name__: build
    for build in (
        decay,
        decay_at_once,
        decay_loose,
        decay_ramp,
        decay_slow,
        observe,
        approve,
        adwin_first,
        page_hinkley_first,
        no_baseline,
        no_holdback,
        no_holdback_act,
        no_holdback_page,
        no_target,
        no_record,
        record_no_better,
        record_mix,
        slice_decay_alone,
        slice_decay,
        both_bad,
        mix_shift,
        mix_ramp,
        mix_and_decay,
        poison,
        label_outage,
        label_loss,
        late_labels,
        nightly,
        coverage_drop,
        implausible_reference,
        no_change,
        no_change_at_once,
        no_change_alone,
        improvement,
        chargebacks,
        chargebacks_calm,
        chargebacks_end,
        slow,
        slow_in_one_country,
        fast,
    )
}

# Where the evidence needs more outcomes than a short recording has, it is not made shorter than this.
LEAST_LINES = {"decay_slow": 160_000, "slice_decay": 110_000, "slice_decay_alone": 110_000}
# Each outcome that counts on arrival is a record of the ledger, so these take longest and say no more with more.
MOST_LINES = {"decay_at_once": 50_000, "no_change_at_once": 12_000}


def scenario(name: str, seed: int = 1, lines: int = FULL_LINES) -> Scenario:
    """Build a scenario by its name.

    Raises:
        KeyError: nobody wrote a scenario of that name.

    >>> scenario("decay").expect.act
    'rollback'
    """
    return SCENARIOS[name](seed, min(max(lines, LEAST_LINES.get(name, 0)), MOST_LINES.get(name, FULL_LINES)))
