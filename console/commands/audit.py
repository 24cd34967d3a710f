"""`unship audit`."""

from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from console.logs import is_log, keys_folder, open_topics, settings_for_reading
from console.progress import counting, reading
from console.settings import Exit, Settings
from streams.audit.decisions_audit import audit_decisions
from streams.audit.ledger_audit import audit_topics
from streams.audit.replayed import audit_replayed, is_replayed
from streams.audit.result import AuditResult
from streams.config.file import load
from streams.config.resolved import Config
from streams.recordings.file_formats import open_recording
from streams.recordings.lines import Topics
from streams.recordings.opening import has_ledger, open_seekable
from streams.recordings.recorded_topics import RecordedTopics
from unship.errors import ConfigurationError, RecordingError
from unship.keys import TRUST_FILE, load_trust


def audit_command(settings: Settings, source: str, decision: str | None, journal: Path | None) -> Exit:
    """Audit a recording or a log; returns 1 if anything differs."""
    settings, config = settings_for_reading(settings, source)
    if settings.config is not None and not settings.found:
        # Named: losses of one's own that the ledger was judged with are needed to judge again.
        config = load(settings.config)
    result = _audit(settings, config, source, journal)
    if result.first_difference is None and not (result.decisions or result.ledger_records):
        raise RecordingError(
            f"{source}: it holds no decision and no ledger record, so nothing can be compared; name a recording or a "
            "log that has them, or give the decisions with --journal"
        )
    if decision is not None and decision not in result.known:
        raise RecordingError(f"{source}: there is no decision {decision}")
    good = result.first_difference is None if decision is None else decision in result.ids
    _print(settings, result, decision, good)
    return Exit.GOOD if good else Exit.FINDING


def _audit(settings: Settings, config: Config, source: str, journal: Path | None) -> AuditResult:
    if is_log(source):
        _refuse(journal)
        with open_topics(settings, config, source) as log:
            return _audit_topics(settings, config, log, None)
    with open_seekable(source, config.recording_bytes) as stream:
        if not has_ledger(stream):
            return _audit_decisions(settings, config, source, stream, journal)
        _refuse(journal)
        with reading("audit", source, settings.quiet) as progress:
            if is_replayed(stream):
                return audit_replayed(stream, progress)
            topics = RecordedTopics(stream, progress)
        return _audit_topics(settings, config, topics, topics.damage)


def _refuse(journal: Path | None) -> None:
    if journal is not None:
        raise ConfigurationError("--journal: a recording with a ledger holds its own decisions; leave the option out")


def _audit_topics(settings: Settings, config: Config, topics: Topics, damage: str | None) -> AuditResult:
    trust_file = keys_folder(settings, config) / TRUST_FILE
    trust = load_trust(trust_file) if trust_file.exists() else None
    with counting("audit: ledger records", settings.quiet) as progress:
        return audit_topics(topics, trust, damage, progress)


def _audit_decisions(
    settings: Settings, config: Config, source: str, stream: BinaryIO, journal: Path | None
) -> AuditResult:
    with ExitStack() as stack:
        recorded = () if journal is None else stack.enter_context(open_recording(str(journal), config.recording_bytes))
        progress = stack.enter_context(reading("audit", source, settings.quiet))
        return audit_decisions(stream, recorded, config, progress)


def _print(settings: Settings, result: AuditResult, decision: str | None, good: bool) -> None:
    if settings.as_json:
        found = None if good else msgspec.to_builtins(result.first_difference)
        facts = {"decisions": result.decisions, "reproduced": result.reproduced, "first_difference": found}
        for name in ("missing", "remarks", "proof"):
            if sentences := getattr(result, name):
                facts[name] = sentences
        click.echo(msgspec.json.encode(facts).decode())
        return
    if good:
        ledger = f", and {result.ledger_records} ledger records" if result.ledger_records else ""
        what = f"decision {decision}" if decision else f"{result.reproduced} of {result.decisions} decisions{ledger}"
        click.echo(f"{what} reproduced bit for bit")
        _print_remarks(result)
        return
    click.echo(f"{result.reproduced} of {result.decisions} decisions reproduced before the first difference")
    if result.first_difference is not None:
        click.echo(f"first difference: {result.first_difference.sentence()}")
        for sentence in result.missing:
            if sentence != result.first_difference.what:
                click.echo(f"absent: {sentence}")
    _print_remarks(result)


def _print_remarks(result: AuditResult) -> None:
    # Part of the verdict: it covers only what was checked.
    for remark in result.remarks:
        click.echo(f"not checked: {remark}")
    for sentence in result.proof:
        click.echo(f"proven: {sentence}")
