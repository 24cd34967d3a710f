"""Run `unship demo`: replicas, label sources and the monitor as processes, from the first request to the audit."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import click
import msgspec
import numpy as np

from actions.reasons import Action, Verdict
from console.census import SCENARIOS, Scenario, config_yaml
from console.census.facts import PhaseFacts, phases
from console.census.scenarios import MODEL
from console.census.traffic import TS_START_MS, Requests, draw_requests
from console.demo.course import Course, Progress
from console.demo.views import print_tables, view
from console.demo.workers import REPLICAS, private_folder, stage
from console.outputs import check_output
from console.sentences import sentence
from console.settings import Exit, Settings
from streams.audit.ledger_audit import audit_topics
from streams.audit.result import AuditResult
from streams.config.parse import parse
from streams.config.units import span_text
from streams.recordings.file_formats import open_recording
from streams.recordings.recorded_topics import RecordedTopics
from unship.errors import ConfigurationError


class Played(msgspec.Struct, frozen=True):
    """Hold the result of a course after its processes have ended."""

    seen: Progress
    phases: tuple[PhaseFacts, ...]
    replicas: dict[str, tuple[str, list[int] | None]]
    converged: bool
    events: int


def demo_command(settings: Settings, name: str, seed: int, speed: float, holdback: bool, record: Path | None) -> Exit:
    """Run one scenario; FINDING if a replica did not converge or the audit finds a difference."""
    began = time.monotonic()
    # SIGTERM ends it like Ctrl-C: the processes are stopped and the keys removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scenario = _scenario(name)
    if scenario is None:
        return Exit.GOOD
    if seed < 0:
        raise ConfigurationError(f"--seed: expected 0 or more, was {seed}")
    recording = record or Path(mkdtemp(prefix="unship-demo-recording-")) / "recording.ndjson"
    check_output("--record", recording, [settings.config])
    played = _play(
        settings, scenario, draw_requests(scenario, np.random.default_rng(seed), holdback), holdback, speed, recording
    )
    with open_recording(str(recording)) as stream:
        topics = RecordedTopics(stream)
        audit = audit_topics(topics, None, topics.damage)
    if settings.as_json:
        summary = _summary(scenario.name, seed, played, audit)
        summary |= {"recording": str(recording), "seconds": round(time.monotonic() - began, 3)}
        click.echo(msgspec.json.encode(summary).decode())
    else:
        _show(settings, played, audit, recording)
    return Exit.GOOD if played.converged and audit.first_difference is None else Exit.FINDING


def _scenario(name: str) -> Scenario | None:
    """Return the scenario; print the list and return None for `list`."""
    if name in SCENARIOS:
        return SCENARIOS[name]
    lines = "\n".join(f"  {entry.name}: {entry.story}" for entry in SCENARIOS.values())
    if name == "list":
        click.echo(lines)
        return None
    raise ConfigurationError(f"there is no scenario {name!r}; the scenarios are\n{lines}")


def _play(
    settings: Settings, scenario: Scenario, requests: Requests, holdback: bool, speed: float, recording: Path
) -> Played:
    """Play the scenario and write its recording; all processes and keys are gone afterwards."""
    maturity = span_text(parse(config_yaml(scenario.name)).of(MODEL).mature_after_ms)
    settings.report(
        f"{scenario.story}\n{len(REPLICAS)} replicas, the label sources and the monitor run as separate processes. "
        f"Predictions are judged {maturity} after they were made (mature_after: {maturity})."
    )
    with (
        private_folder() as folder,
        stage(folder, config_yaml(scenario.name, holdback), TS_START_MS) as processes,
        view(settings, maturity) as shown,
        closing(Course(processes, requests, speed, shown)) as course,
    ):
        seen = course.play()
        replicas, command = course.answering(), course.command()
        obeyed = command is not None and all(
            found == (command.serve, list(command.epoch)) for found in replicas.values()
        )
        course.keep(recording)
        return Played(
            seen,
            phases(scenario, course.traffic, seen.answered, seen.taken_back),
            replicas,
            course.converged() and obeyed and len(replicas) == len(REPLICAS),
            course.events(),
        )


def _summary(scenario: str, seed: int, played: Played, audit: AuditResult) -> dict[str, Any]:
    status = played.seen.status
    return {
        "scenario": scenario,
        "seed": seed,
        "decisions": played.seen.decisions,
        "replicas": {name: {"version": version, "epoch": epoch} for name, (version, epoch) in played.replicas.items()},
        "converged": played.converged,
        "audit": {"decisions": audit.decisions, "reproduced": audit.reproduced},
        "events": played.events,
        "rejected": {} if status is None else status.rejected,
    }


def _show(settings: Settings, played: Played, audit: AuditResult, recording: Path) -> None:
    """Print the tables, the audit and the result."""
    print_tables(settings, played.phases, played.seen.decisions, played.replicas)
    click.echo(f"audit: {audit.reproduced} of {audit.decisions} decisions reproduced bit for bit from {recording}")
    if audit.first_difference is not None:
        click.echo(f"first difference: {audit.first_difference.sentence()}")
    click.echo(_in_the_end(played.seen, played.converged))


def _in_the_end(seen: Progress, converged: bool) -> str:
    """Return the result as one sentence."""
    acted = [decision for decision in seen.decisions if decision.action is not Action.NONE]
    if not converged:
        return "Not every replica converged; the table above shows what each one serves."
    if not acted and seen.decisions and seen.decisions[-1].verdict is Verdict.DEGRADED:
        return sentence(seen.decisions[-1])
    if not acted:
        return f"No action was taken: in {seen.answered} predictions there is no sign that a version got worse."
    last = sentence(acted[-1])
    if acted[-1].action is not Action.ROLLBACK:
        return last
    return f"{last[:-1]}; all {len(REPLICAS)} replicas have converged."
