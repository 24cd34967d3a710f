"""Predictions without a label are judged like the labelled ones they stand for.

The oracle is the program itself on another recording: one in which somebody tells every truth that is left to be
understood in the first. What the detectors hold afterwards must be the same to the last bit.
"""

from __future__ import annotations

import io
import random
from typing import Any, Literal

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actions.journal import Decision
from streams.audit.ledger_audit import audit_topics
from streams.audit.replayed import audit_replayed
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.model import ModelFold
from streams.recordings.recorded_topics import RecordedTopics
from streams.recordings.replay import Recorder, Replay
from tests.effort import some_of
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction, Reference

START = 1_772_409_600_000
MATURITY_MS = 20_000
OBJECTIVE_MS = 100.0
Timed = list[tuple[int, Event]]
Beside = Literal["holdback", "shadow"]
SAID = ("verdict", "reason", "action", "version", "to", "slice", "outcomes", "ts")


def config_of(losses: str, missing: str = "ignore", mature_after: str = "20s") -> Config:
    return parse(
        f"""
models:
  m:
    losses: {losses}
    labels: {{mature_after: {mature_after}, early: 2s, missing: {missing}}}
    slices: {{by: [country]}}
    worse_by: 0
    one_false_alarm_per: 200
    policy: {{mode: act, cooldown: 5s, confirm_within: 10s}}
"""
    )


def deployments(beside: Beside) -> Timed:
    references = {name: Reference(mean=0.1, n=1_000) for name in ("zero_one", "latency")}
    return [
        (0, Deployment(model="m", version="v1", status="live", ts=START)),
        (1, Deployment(model="m", version="v2", status="live", previous="v1", reference=references, ts=START + 1)),
        (1, Deployment(model="m", version="v1", status=beside, ts=START + 1)),
    ]


class Asked:
    """One request: its truth, when its label comes, and who answers how."""

    def __init__(self, rng: random.Random, number: int, count: int, beside: Beside) -> None:
        self.id, self.at = f"p{number}", 2 + number * 60 + rng.randrange(60)
        self.truth = rng.randrange(2)
        # Some labels come early, most in time, a few after the maturity of 20 seconds.
        self.labelled_at = max(self.at + rng.choice([-500, 1, 400, 3_000, 9_000, 25_000]), 0)
        self.versions = [("v2", "live")]
        if rng.random() < 0.5:
            self.versions = [("v1", "holdback")] if beside == "holdback" else [("v2", "live"), ("v1", "shadow")]
        self.wrong = {v: rng.random() < (0.8 if v == "v2" and number > count / 3 else 0.1) for v, _ in self.versions}
        self.country = rng.choice(["DE", "FR"])

    def predictions(self, **fields: Any) -> Timed:
        events: Timed = []
        for version, role in self.versions:
            answer: dict[str, Any] = {"output": 1 - self.truth if self.wrong[version] else self.truth}
            if "latency" in fields:
                answer["latency_ms"] = OBJECTIVE_MS + (1 if self.wrong[version] else 0)
            events.append(
                (
                    self.at,
                    Prediction(
                        id=self.id,
                        model="m",
                        version=version,
                        role=role,  # type: ignore[arg-type]
                        slices={"country": self.country},
                        ts=START + self.at,
                        **answer,
                    ),
                )
            )
        return events

    def label(self, truth: int, at: int) -> tuple[int, Event]:
        return at, Feedback(id=self.id, truth=truth, ts=START + at)

    def filler(self, at: int) -> tuple[int, Event]:
        """Return a label of nobody: predictions keep their lines, whose numbers decide the order inside a cohort."""
        return at, Feedback(id=f"nobody-{self.id}", truth=0, ts=START + at)


def lines_of(events: Timed) -> bytes:
    return b"\n".join(encode_line(event) for _, event in sorted(events, key=lambda event: event[0])) + b"\n"


def replayed(config: Config, recording: bytes) -> tuple[ModelFold, list[Decision], Replay]:
    replay = Replay(config)
    decisions = [*replay.decisions(io.BytesIO(recording)), *replay.advance(START + 10_000_000)]
    return replay.folds[0].models["m"], decisions, replay


def held(model: ModelFold) -> dict[str, np.ndarray]:
    """Return what the detectors of all requests hold, of each version."""
    assert model.state.live is not None
    versions = {"live": model.state.live.health}
    found: dict[str, np.ndarray] = {}
    for name, beside in model.state.live.concurrent.items():
        versions[name] = beside.health
        found[f"{name} compared"] = beside.comparison.evidence[0, 0]
    for name, health in versions.items():
        bank = health.rows.banks[0]
        found[name] = np.array([health.outcomes, bank.n[0], bank.k[0], bank.own_n[0], bank.own_k[0]])
        found[f"{name} evidence"] = bank.evidence[0]
    return found


def same(first: tuple[ModelFold, list[Decision], Replay], second: tuple[ModelFold, list[Decision], Replay]) -> None:
    mine, theirs = held(first[0]), held(second[0])
    assert mine.keys() == theirs.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, theirs[name], name)
    assert first[0].state.outcomes == second[0].state.outcomes
    said = [[{name: getattr(decision, name) for name in SAID} for decision in run[1]] for run in (first, second)]
    assert said[0] == said[1]


seeds = st.integers(0, 2**32)


@settings(max_examples=some_of(20))
@given(seed=seeds, beside=st.sampled_from(["holdback", "shadow"]))
def test_silence_at_maturity_counts_as_a_told_no_would(seed: int, beside: Beside) -> None:
    rng = random.Random(seed)
    asked = [Asked(rng, i, 300, beside) for i in range(300)]
    silent, told = deployments(beside), deployments(beside)
    for request in asked:
        silent += request.predictions()
        told += request.predictions()
        in_time = request.truth and request.labelled_at <= request.at + MATURITY_MS
        late, soon = request.labelled_at, request.at + 1
        silent.append(request.label(1, late) if request.truth else request.filler(late))
        silent.append(request.filler(soon))
        told.append(request.label(1, late) if in_time else request.filler(late))
        told.append(request.filler(soon) if in_time else request.label(0, soon))
    first = replayed(config_of("[zero_one]", "negative"), lines_of(silent))
    second = replayed(config_of("[zero_one]"), lines_of(told))
    same(first, second)
    late = sum(r.truth and r.labelled_at > r.at + MATURITY_MS for r in asked)
    answers = sum(len(r.versions) for r in asked if r.truth and r.labelled_at > r.at + MATURITY_MS)
    assert late
    assert first[2].counts()["AFTER_MATURITY"] == answers


@settings(max_examples=some_of(20))
@given(seed=seeds, beside=st.sampled_from(["holdback", "shadow"]))
def test_slow_answer_without_a_label_counts_as_a_wrong_one_with_a_label(seed: int, beside: Beside) -> None:
    rng = random.Random(seed)
    asked = [Asked(rng, i, 300, beside) for i in range(300)]
    slow, wrong = deployments(beside), deployments(beside)
    for request in asked:
        slow += request.predictions(latency=True)
        wrong += request.predictions()
        wrong.append(request.label(request.truth, request.at + 1))
        slow.append(request.filler(request.at + 1))
        if rng.random() < 0.5:
            # A model that looks at nothing but the latency has no use for it.
            slow.append(request.label(request.truth, request.labelled_at))
            wrong.append(request.filler(request.labelled_at))
    losses = f"[{{latency: {{objective_ms: {OBJECTIVE_MS:g}}}}}]"
    first = replayed(config_of(losses), lines_of(slow))
    same(first, replayed(config_of("[zero_one]"), lines_of(wrong)))
    assert first[0].state.live is not None
    assert first[0].state.live.labels.share is None


@settings(max_examples=some_of(20))
@given(seed=seeds, beside=st.sampled_from(["holdback", "shadow"]), mature_after=st.sampled_from(["0s", "20s"]))
def test_latency_beside_another_loss_is_judged_once_for_each_prediction(
    seed: int, beside: Beside, mature_after: str
) -> None:
    rng = random.Random(seed)
    asked = [Asked(rng, i, 300, beside) for i in range(300)]
    events, told = deployments(beside), []
    for request in asked:
        events += request.predictions(latency=True)
        if rng.random() < 0.7:
            events.append(request.label(request.truth, request.labelled_at))
            told.append(request)
    model, _, replay = replayed(
        observing(config_of(f"[zero_one, {{latency: {{objective_ms: {OBJECTIVE_MS:g}}}}}]", "ignore", mature_after)),
        lines_of(events),
    )
    assert model.state.live is not None
    versions = {"v2": model.state.live.health, **{n: b.health for n, b in model.state.live.concurrent.items()}}
    for version, health in versions.items():
        mine = [r for r in asked if version in r.wrong]
        # Nothing is in both roles, so what is known of an alarm is taken out of both counts alike.
        labelled = [r for r in mine if r in told and (mature_after == "0s" or r.labelled_at <= r.at + MATURITY_MS)]
        assert health.outcomes == len(labelled)
        assert model.state.outcomes[version] == len(labelled)
        if not health.alarms:
            assert health.rows.banks[0].own_n[0] == len(labelled)
            assert health.rows.banks[1].own_n[0] == len(mine)
            assert health.rows.banks[1].own_k[0] == sum(r.wrong[version] for r in mine)
    assert "MISSING_LATENCY" not in replay.counts()


def observing(config: Config) -> Config:
    """Return a configuration under which the live version stays, so that its whole period can be counted."""
    models = {name: msgspec.structs.replace(model, mode="observe") for name, model in config.models.items()}
    return msgspec.structs.replace(config, models=models)


@settings(max_examples=some_of(10))
@given(
    seed=seeds,
    beside=st.sampled_from(["holdback", "shadow"]),
    setting=st.sampled_from(
        [
            ("[zero_one]", "negative", "20s"),
            ("[zero_one, {latency: {objective_ms: 100}}]", "negative", "20s"),
            ("[{latency: {objective_ms: 100}}, zero_one]", "ignore", "0s"),
        ]
    ),
)
def test_audit_reproduces_from_sources_and_from_the_ledger_alone(
    seed: int, beside: Beside, setting: tuple[str, str, str]
) -> None:
    rng = random.Random(seed)
    events = deployments(beside)
    for i in range(200):
        request = Asked(rng, i, 200, beside)
        events += request.predictions(latency=True)
        if request.truth:
            events.append(request.label(1, request.labelled_at))
    config, written = config_of(*setting), io.BytesIO()
    replay = Replay(config, recorder=Recorder(written))
    decisions = list(replay.decisions(io.BytesIO(lines_of(events))))
    complete = written.getvalue()
    result = audit_replayed(io.BytesIO(complete))
    assert (result.first_difference, result.reproduced) == (None, len(decisions))
    kinds = (b'{"type":"ledger"', b'{"type":"decision"')
    alone = b"".join(line for line in complete.splitlines(keepends=True) if line.startswith(kinds))
    result = audit_topics(RecordedTopics(io.BytesIO(alone)), None)
    assert (result.first_difference, result.reproduced) == (None, len(decisions))
    assert b'"unlabelled":{' in alone
