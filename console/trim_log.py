"""`unship trim`: remove from an embedded log what nobody needs any more, at once."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from console.logs import embedded_folder
from console.settings import Exit, Settings
from streams.config.file import load
from streams.embedded.retention import needed_ms, removable
from unship.errors import RecordingError
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.log import EmbeddedLog


class Trimmed(msgspec.Struct, frozen=True):
    """What was removed, or would be: records by topic, and the size of the log's files in bytes before and after."""

    removed: dict[str, int]
    bytes_before: int
    bytes_after: int
    dry_run: bool


def trim_command(settings: Settings, dry_run: bool) -> Exit:
    """Remove source records that no label can join, compress the ledger, and return the space to the disk."""
    config = load(settings.config)
    folder = embedded_folder(settings, config)
    if not (folder / FILE_NAME).is_file():
        raise RecordingError(f"{folder}: there is no log in it; name the folder that `unship run` writes to")
    before = _size(folder)
    with EmbeddedLog(folder) as log:
        found = removable(log, needed_ms(config))
        if not found.trim:
            settings.report("trim: no snapshot yet, so all of it is needed; the monitor saves one every 30 seconds")
        ends = log.ends()
        bounds = {topic: min(bound, ends[topic] - 1) for topic, bound in found.trim.items()}
        removed = {topic: max(0, bound - log.first(topic)) for topic, bound in bounds.items()}
        if not dry_run:
            removed = {topic: log.trim(topic, bound) for topic, bound in found.trim.items()}
            for topic, bound in found.pack.items():
                log.pack(topic, bound)
            log.rewrite()
            while log.shrink():
                pass
    _show(settings, folder, Trimmed(removed, before, _size(folder), dry_run))
    return Exit.GOOD


def _show(settings: Settings, folder: Path, trimmed: Trimmed) -> None:
    if settings.as_json:
        click.echo(msgspec.json.encode(trimmed).decode())
        return
    verb = "would be removed" if trimmed.dry_run else "removed"
    for topic, count in trimmed.removed.items():
        click.echo(f"{topic}: {count} records {verb}")
    if not trimmed.dry_run:
        click.echo(f"{folder}: {trimmed.bytes_before} bytes before, {trimmed.bytes_after} now")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{FILE_NAME}*"))
