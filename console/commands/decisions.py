"""Run `unship decisions`: list what was decided, one line each, the newest last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from actions.journal import Decision, decision_bytes
from console.journal import Found, journal_of, read_whole
from console.sentences import clean
from console.settings import Exit, Settings
from console.tables import aligned
from console.times import shown_time, time_ms


def decisions_command(
    settings: Settings, model: str | None, source: str | None, since: str | None, action: str | None
) -> Exit:
    """Print the decisions on a model, or on all."""
    since_ms = 0 if since is None else time_ms("--since", since)
    with journal_of(settings, source) as (name, found):
        chosen = (read_whole(entry, name) for entry in _chosen(found, model, since_ms, action))
        if settings.as_json:
            for decision in chosen:
                click.echo(decision_bytes(decision).decode())
            return Exit.GOOD
        rows = [_row(decision) for decision in chosen]
    if not rows:
        settings.report("decisions: none yet" if (model, since, action) == (None,) * 3 else "decisions: none of these")
        return Exit.GOOD
    for line in aligned(rows):
        click.echo(line)
    settings.report(f"decisions: {len(rows)}; why one was taken: unship explain ID")
    return Exit.GOOD


def _chosen(found: Iterable[Found], model: str | None, since_ms: int, action: str | None) -> Iterator[Found]:
    for entry in found:
        head = entry.head
        # A time that is none is for the reader of the whole decision to refuse.
        early = isinstance(head.ts, int) and head.ts < since_ms
        if model in (None, head.model) and action in (None, head.action) and not early:
            yield entry


def _row(decision: Decision) -> tuple[str, ...]:
    slices = ", ".join(f"{clean(name)}={clean(value)}" for name, value in (decision.slice or {}).items())
    change = clean(decision.version) if decision.to is None else f"{clean(decision.version)} -> {clean(decision.to)}"
    return (
        shown_time(decision.ts), clean(decision.id), clean(decision.model), change, decision.action,
        f"{decision.reason}{f' ({slices})' if slices else ''}",
    )  # fmt: skip
