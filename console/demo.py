"""`unship demo`: a recording of real predictions on census rows is made, replayed into decisions and audited."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from actions.journal import decision_bytes
from console.census import SCENARIOS, RecordingFacts, config_yaml, make_recording
from console.progress import reading
from console.sentences import sentence
from streams.audit import AuditResult, audit_recording
from streams.config import parse
from streams.replay import Recorder, Replay, open_recording
from unship.errors import ConfigurationError

Decision = dict[str, Any]


def demo_command(settings: Any, name: str, seed: int, record: Path | None) -> int:
    """Run one scenario; returns 1 if the audit finds a difference."""
    if name not in SCENARIOS:
        lines = "\n".join(f"  {entry.name}: {entry.story}" for entry in SCENARIOS.values())
        if name == "list":
            click.echo(lines)
            return 0
        raise ConfigurationError(f"there is no scenario {name!r}; the scenarios are\n{lines}")
    if seed < 0:
        raise ConfigurationError(f"--seed: expected 0 or more, was {seed}")
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="unship-demo-"))
    events = folder / "events.ndjson"
    facts = make_recording(name, seed, events)
    (folder / "unship.yaml").write_text(config_yaml(name), encoding="utf-8")
    settings.tell(
        f"{facts.story}\n"
        f"{facts.predictions} answers of two real models on census rows, {facts.labels} labels that come later."
    )
    recording = record or folder / "recording.ndjson"
    replay, decisions = _replay(settings, name, events, recording)
    # The recording holds the events as well.
    events.unlink()
    with open_recording(str(recording)) as stream, reading("audit ", str(recording), settings.quiet) as progress:
        audit = audit_recording(stream, parse(""), progress)
    if settings.as_json:
        click.echo(msgspec.json.encode(_summary(facts, decisions, replay, audit, recording, started)).decode())
    else:
        _show(facts, decisions, audit, recording, settings)
    return 0 if audit.first_difference is None else 1


def _replay(settings: Any, name: str, events: Path, recording: Path) -> tuple[Replay, list[Decision]]:
    decisions = []
    try:
        target = recording.open("wb")
    except OSError as error:
        raise ConfigurationError(f"--record: {recording} cannot be written: {error.strerror}") from error
    with target, open_recording(str(events)) as stream, reading("replay", str(events), settings.quiet) as progress:
        replay = Replay(parse(config_yaml(name)), recorder=Recorder(target))
        for decision in replay.decisions(stream, progress=progress):
            decisions.append(msgspec.json.decode(decision_bytes(decision)))
    return replay, decisions


def _summary(
    facts: RecordingFacts,
    decisions: list[Decision],
    replay: Replay,
    audit: AuditResult,
    recording: Path,
    started: float,
) -> dict[str, Any]:
    return {
        "scenario": facts.scenario,
        "seed": facts.seed,
        "decisions": decisions,
        "recording": str(recording),
        "audit": {"decisions": audit.decisions, "reproduced": audit.reproduced},
        "events": facts.lines,
        "rejected": replay.counts(),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _show(facts: RecordingFacts, decisions: list[Decision], audit: AuditResult, recording: Path, settings: Any) -> None:
    """Print what happened as tables, and last the one sentence."""
    from rich.console import Console
    from rich.table import Table

    console = Console(no_color=not settings.color, highlight=False, width=None if sys.stdout.isatty() else 100)
    phases = Table(title="What the models did (share of wrong answers)", title_justify="left")
    for column in ("phase", "version", "role", "answers", "wrong"):
        phases.add_column(column, justify="right" if column in ("answers", "wrong") else "left")
    for phase in facts.phases:
        phases.add_row(phase.phase, phase.version, phase.role, str(phase.predictions), f"{100 * phase.zero_one:.1f} %")
    console.print(phases)
    acts = Table(title="What the monitor decided", title_justify="left")
    for column in ("hours since v42 went live", "verdict", "reason", "action", "labelled answers"):
        acts.add_column(column, justify="right" if column[0] in "hl" else "left")
    for decision in decisions:
        hours = (decision["ts"] - facts.ts_released_ms) / 3_600_000
        target = f" to {decision['to']}" if decision["to"] else ""
        acts.add_row(
            f"{hours:.2f}",
            decision["verdict"],
            decision["reason"],
            decision["action"] + target,
            str(decision["outcomes"]),
        )
    console.print(acts if decisions else "The monitor decided nothing, because nothing got worse.")
    differs = audit.first_difference
    console.print(
        f"audit: {audit.reproduced} of {audit.decisions} decisions reproduced bit for bit from {recording}",
        soft_wrap=True,
    )
    if differs is not None:
        console.print(f"first difference: {differs.sentence()}", soft_wrap=True)
    acted = [decision for decision in decisions if decision["action"] != "none"]
    calm = f"Nothing was done, because nothing got worse in {facts.predictions} answers of both versions."
    click.echo(sentence(acted[-1]) if acted else calm)
