"""Small recordings that hypothesis makes up: a version that decays, beside one that does not, and their labels."""

from __future__ import annotations

import random
from typing import Any
from zlib import crc32

import msgspec
from hypothesis import strategies as st

from streams.config.parse import parse
from streams.config.resolved import Config
from unship.events import Deployment, Event, Feedback, OperatorAct, Prediction, Reference

START = 1_772_409_600_000


class Plan(msgspec.Struct, frozen=True):
    """What a small recording is made of."""

    seed: int
    mature_after_s: int
    lines: int
    mode: str
    beside: str
    slices: bool
    sources: int
    deciding: str
    noise: bool
    acts: bool
    # Only bad news is told; without a maturity that is refused, so the plan's falls back to `ignore`.
    negative: bool = False
    latency: str = "none"

    @property
    def losses(self) -> str:
        judged, took = "zero_one, brier", "{latency: {objective_ms: 100}}"
        return {"none": judged, "beside": f"{judged}, {took}", "first": f"{took}, {judged}", "alone": took}[
            self.latency
        ]

    @property
    def only_bad_news(self) -> bool:
        return self.negative and self.mature_after_s > 0

    #: Answers of v1 as the live version, before v2 is deployed: enough of them are a record.
    before: int = 0
    without_control: str = "propose"
    #: From half of the recording on, this share of the answers gets a label.
    labelled_after: float = 0.95
    reference: float = 0.1
    decay: float = 0.8
    #: So many units ask, each answered by either version; every seventh answer is of none that is named.
    units: int = 0


EVERYTHING = Plan(7, 5, 300, "act", "holdback", True, 3, "e_detector", True, False)

plans = st.builds(
    Plan,
    seed=st.integers(0, 2**16),
    mature_after_s=st.sampled_from([0, 0, 5, 20]),
    lines=st.sampled_from([250, 500]),
    mode=st.sampled_from(["act", "approve", "observe"]),
    beside=st.sampled_from(["holdback", "shadow", "none"]),
    slices=st.booleans(),
    sources=st.sampled_from([1, 3]),
    deciding=st.sampled_from(["e_detector", "e_detector", "adwin", "page_hinkley"]),
    noise=st.booleans(),
    acts=st.booleans(),
    negative=st.booleans(),
    latency=st.sampled_from(["none", "none", "beside", "first", "alone"]),
    before=st.sampled_from([0, 0, 700]),
    without_control=st.sampled_from(["propose", "act", "page"]),
    units=st.sampled_from([0, 0, 5, 100]),
)


def config_of(plan: Plan) -> Config:
    """Return a configuration so eager that a few hundred outcomes lead to decisions."""
    others = [name for name in ("e_detector", "adwin", "page_hinkley") if name != plan.deciding]
    return parse(
        f"""
models:
  m:
    losses: [{plan.losses}]
    labels:
      mature_after: {plan.mature_after_s}s
      early: 2s
      missing: {"negative" if plan.only_bad_news else "ignore"}
    slices: {{by: {"[country, vip]" if plan.slices else "[]"}, cap: 3}}
    worse_by: 0
    one_false_alarm_per: 200
    detectors: [{", ".join([plan.deciding, *others])}]
    policy: {{mode: {plan.mode}, cooldown: 5s, max_switches: 2 per 1m, confirm_within: 10s, proposal_ttl: 8s,
      without_control: {plan.without_control}}}
"""
    )


def events_of(plan: Plan) -> list[tuple[int, Event]]:
    """Return predictions of a version that decays, of one that does not, and their labels, by time."""
    rng = random.Random(plan.seed)
    switch = 1 + plan.before * 60
    stated = {name: Reference(mean=plan.reference, n=1_000) for name in ("zero_one", "brier", "latency")}
    after = Deployment(model="m", version="v2", status="live", previous="v1", reference=stated, ts=START + switch)
    events: list[tuple[int, Event]] = [
        (0, Deployment(model="m", version="v1", status="live", ts=START)),
        (switch, after),
    ]
    if plan.beside != "none":
        status: Any = plan.beside
        events.append((switch, Deployment(model="m", version="v1", status=status, ts=START + switch)))
    for i in range(-plan.before, plan.lines):
        at = switch + 1 + i * 60 + rng.randrange(60)
        asked: list[tuple[str, Any]] = [("v2" if i >= 0 else "v1", "live")]
        if i < 0:
            pass
        elif plan.beside == "holdback" and rng.random() < 0.4:
            asked = [("v1", "holdback")]
        elif plan.beside == "shadow" and rng.random() < 0.6:
            asked.append(("v1", "shadow"))
        truth = rng.randrange(2)
        for version, role in asked:
            wrong = rng.random() < (plan.decay if version == "v2" and i > 0.3 * plan.lines else 0.1)
            score = min(max(0.5 + (0.4 if truth != wrong else -0.4) + rng.uniform(-0.1, 0.1), 0.0), 1.0)
            slices: Any = (
                {"country": rng.choice(["DE", "FR", "US", "GB"]), "vip": rng.random() < 0.5} if plan.slices else {}
            )
            output = 1 - truth if wrong else truth
            ts = START + at
            slow = version == "v2" and i > 0.3 * plan.lines
            took = None if rng.random() < 0.05 else rng.uniform(0, 200 if slow else 110)
            prediction = Prediction(
                id=f"p{i}",
                model="m",
                version=version,
                role=role,
                output=output,
                score=score,
                slices=slices,
                latency_ms=took if plan.latency != "none" else None,
                unit_hash=crc32(f"{i % plan.units}".encode()) if plan.units and i % 7 else None,
                ts=ts,
            )
            events.append((at, prediction))
        told = plan.labelled_after if i > 0.5 * plan.lines else 0.95
        if rng.random() < told and (truth or not plan.only_bad_news):
            later = max(at + rng.choice([-500, 1, 400, 3_000, 9_000]), 0)
            events.append(
                (
                    later,
                    Feedback(id=f"p{i}", truth=truth, source=f"desk-{rng.randrange(plan.sources)}", ts=START + later),
                )
            )
    return sorted(events + (acts_of(plan) if plan.acts else []), key=lambda event: event[0])


def acts_of(plan: Plan) -> list[tuple[int, Event]]:
    """Return what an operator orders in the course of the recording."""
    acts: dict[Any, float] = {"hold": 0.1, "resume": 0.3, "pin": 0.4, "unpin": 0.5, "approve": 0.6, "rollback": 0.7}
    events: list[tuple[int, Event]] = []
    for act, share in acts.items():
        at = 1 + plan.before * 60 + int(plan.lines * 60 * share)
        to = "v1" if act == "rollback" else None
        events.append((at, OperatorAct(act=act, model="m", reason="test", by="me", to=to, ts=START + at)))
    return events
