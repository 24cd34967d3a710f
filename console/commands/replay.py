"""`unship replay`."""

from contextlib import ExitStack
from pathlib import Path

import msgspec

from actions.journal import decision_bytes
from console.logs import open_lines, settings_for_reading
from console.outputs import check_output, check_standard_output, files_of, output_file, standard_output
from console.progress import reading
from console.replay_summary import no_event, refusals, remarks, table, unused_lines
from console.settings import Exit, Settings
from console.times import time_ms
from streams.config.file import load
from streams.fold.summary import summarise
from streams.recordings.opening import begins_with_ledger
from streams.recordings.replay import Recorder, Replay
from unship.errors import ConfigurationError, RecordingError, SnapshotError


def replay_command(
    settings: Settings,
    source: str,
    batch: int,
    stop_after: int | None,
    save: Path | None,
    resume: Path | None,
    until: str | None,
    record: Path | None,
) -> Exit:
    """Replay a recording; decisions go to stdout, a summary to stderr."""
    if stop_after is not None and until is not None:
        raise ConfigurationError(
            "--until and --stop-after exclude each other: a stopped replay goes on later with --from"
        )
    until_ms = None if until is None else time_ms("--until", until)
    out = standard_output()
    with ExitStack() as stack:
        reading_settings, config = settings_for_reading(settings, source)
        read = [*files_of(source), resume, settings.config]
        check_standard_output(files_of(source))
        for option, path, other in (("--save", save, record), ("--record", record, save)):
            if path is not None:
                check_output(option, path, [*read, other])
        stream = stack.enter_context(open_lines(reading_settings, config, source))
        if not begins_with_ledger(stream) or not settings.found:
            # A ledger is replayed under its own configuration; one that was named is compared with it.
            config = load(settings.config)
        recorder = (
            None if record is None else Recorder(stack.enter_context(output_file("--record", record, [*read, save])))
        )
        replay = Replay(config, _snapshot(resume), recorder)
        progress = stack.enter_context(reading("replay", source, settings.quiet))
        for decision in replay.decisions(stream, batch, stop_after, progress):
            out.write(decision_bytes(decision) + b"\n")
        if until_ms is not None:
            for decision in replay.advance(until_ms):
                out.write(decision_bytes(decision) + b"\n")
        out.flush()
        _check_events(replay)
        if save is not None:
            with output_file("--save", save, [*read, record]) as file:
                file.write(replay.save())
    if replay.from_ledger and not settings.found and settings.config and replay.config.digest() != config.digest():
        settings.report(f"replay: the recording's own configuration was used; {settings.config} differs")
    if replay.unread_ledger:
        settings.report("replay: an earlier version wrote the ledger in it, so its sources were replayed instead")
    return _summarise(settings, replay)


def _check_events(replay: Replay) -> None:
    """Check that something was read, before any output takes the place of a file.

    Raises:
        RecordingError: No line is an event, so nothing was found.
    """
    if replay.lines and replay.refusals.count == replay.lines:
        raise RecordingError(f"no line of the recording is an event: {no_event(replay.refusals)}")


def _summarise(settings: Settings, replay: Replay) -> Exit:
    """Report what was found; FINDING if most lines were of no use."""
    counts, rows = replay.counts(), [row for fold in replay.folds.values() for row in summarise(fold)]
    useless = unused_lines(counts)
    if settings.as_json:
        facts = {"lines": replay.lines, "ledger_records": replay.ledger_records, "rejected": counts}
        refused = [(line, rejection.code, rejection.detail) for line, rejection in replay.refusals.first]
        settings.report(msgspec.json.encode(facts | {"versions": rows, "refused": refused}).decode())
    else:
        found = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count) or "nothing"
        settings.report(f"replay: {replay.lines} lines read; rejected or set aside: {found}")
        for line in refusals(replay.refusals.first):
            settings.report(f"replay: {line}")
        if rows:
            settings.report("\n".join(table(rows)))
        for line in remarks(replay.config.models, rows, counts):
            settings.report(f"replay: {line}")
    if 2 * useless <= replay.lines:
        return Exit.GOOD
    settings.report(f"replay: {useless} of {replay.lines} lines were of no use, more than half")
    return Exit.FINDING


def _snapshot(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {error.strerror}") from error
