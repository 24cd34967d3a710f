"""`unship record`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from console.logs import configured_log, open_topics, settings_for_reading
from console.outputs import STANDARD, check_standard_output, files_of, output_file, standard_output
from console.progress import counting
from console.settings import Exit, Settings
from console.times import time_ms
from streams.recordings.writing import EVERYTHING, Span, Written, record_topics
from unship.errors import ConfigurationError


def record_command(settings: Settings, target: str, since: str | None, until: str | None) -> Exit:
    """Copy the topics of a log into a recording; print its limits on stderr."""
    span = Span(
        EVERYTHING.since if since is None else time_ms("--from", since),
        EVERYTHING.until if until is None else time_ms("--to", until),
    )
    if span.since > span.until:
        raise ConfigurationError(f"--from {since} is after --to {until}")
    settings, config = settings_for_reading(settings, None)
    log = configured_log(settings, config)
    with (
        open_topics(settings, config, log) as topics,
        _writing(target, [*files_of(log), settings.config]) as stream,
        counting("record", settings.quiet) as progress,
    ):
        written = record_topics(topics, stream, span, progress)
    _summarise(settings, target, written)
    return Exit.GOOD


def _summarise(settings: Settings, target: str, written: Written) -> None:
    if settings.as_json:
        # A recording on standard output leaves only the other stream for the summary.
        click.echo(msgspec.json.encode(written).decode(), err=target == "-")
    else:
        found = ", ".join(f"{topic} {count}" for topic, count in written.lines.items() if count) or "nothing"
        settings.report(f"record: {target}, {written.bytes} bytes of lines: {found}")
    for limit in written.limits:
        settings.report(f"record: {limit}")


@contextmanager
def _writing(target: str, inputs: list[Path | None]) -> Iterator[BinaryIO]:
    """Open the recording to be written; a file gets its name only when it is complete."""
    if target == STANDARD:
        check_standard_output(inputs)
        out = standard_output()
        yield out
        out.flush()
        return
    with output_file("record", Path(target), inputs) as file:
        yield file
