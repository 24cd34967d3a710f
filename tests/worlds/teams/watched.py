"""How the worlds of teams are watched, and what is decided on them."""

from __future__ import annotations

from actions.journal import Decision
from streams.config.parse import parse
from tests.pipelines import Run
from tests.worlds.teams.people import Told

RATINGS = """
models:
  m:
    target: {kind: custom}
    losses: [engagement]
    labels: {mature_after: 1h, horizon: 1d}
    worse_by: 0.03
    one_false_alarm_per: 100000
"""
CLICKS = """
models:
  m:
    target: {kind: KIND}
    losses: [LOSS]
    labels: {mature_after: 1h, horizon: 1d, missing: negative}
    worse_by: 0.01
    one_false_alarm_per: 100000
    policy: {mode: act, deployments: any}
"""


def decided(told: Told, text: str) -> list[Decision]:
    run = Run(parse(text))
    run.take(told.lines)
    run.rest()
    assert not run.counts.keys() - {"AFTER_MATURITY", "STILL_SERVED", "NOT_JUDGED", "ROLE_MISMATCH"}
    return run.decisions


def degraded(decisions: list[Decision]) -> list[Decision]:
    return [each for each in decisions if str(each.verdict) == "DEGRADED"]
