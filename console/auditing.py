"""`unship audit`."""

import io
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import click
import msgspec

from console.progress import reading
from streams.audit import AuditResult, audit_recording
from streams.config_file import load
from streams.replay import open_recording
from unship.errors import RecordingError


class _Joined(io.RawIOBase):
    """Two streams, one after the other, read by lines."""

    def __init__(self, *streams: BinaryIO) -> None:
        self._lines = chain.from_iterable(streams)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line."""
        return next(self._lines, b"")


def audit_command(settings: Any, source: str, decision: str | None, journal: Path | None) -> int:
    """Audit a recording; returns 1 if anything differs."""
    config = load(settings.config)
    with open_recording(source) as stream, reading("audit", source, settings.quiet) as progress:
        if journal is None:
            result = audit_recording(stream, config, progress)
        else:
            with open_recording(str(journal)) as decisions:
                joined = cast(BinaryIO, _Joined(stream, decisions))
                result = audit_recording(joined, config, progress)
    if decision is not None and decision not in (*result.ids, result.differing_id):
        raise RecordingError(f"{source}: there is no decision {decision}")
    good = result.first_difference is None if decision is None else decision in result.ids
    _print(settings, result, decision, good)
    return 0 if good else 1


def _print(settings: Any, result: AuditResult, decision: str | None, good: bool) -> None:
    if settings.as_json:
        found = None if good else msgspec.to_builtins(result.first_difference)
        facts = {"decisions": result.decisions, "reproduced": result.reproduced, "first_difference": found}
        click.echo(msgspec.json.encode(facts).decode())
        return
    if good:
        ledger = f", and {result.ledger_records} ledger records" if result.ledger_records else ""
        what = f"decision {decision}" if decision else f"{result.reproduced} of {result.decisions} decisions{ledger}"
        click.echo(f"{what} reproduced bit for bit")
        return
    click.echo(f"{result.reproduced} of {result.decisions} decisions reproduced before the first difference")
    if result.first_difference is not None:
        click.echo(f"first difference: {result.first_difference.sentence()}")
