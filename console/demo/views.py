"""Show the demo while it runs, and the tables at its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from actions.journal import Decision
from console.census import PhaseFacts
from console.census.scenarios import MODEL
from console.demo.course import Progress, View
from console.settings import Settings
from streams.config.units import MINUTE_MS

LINE_EVERY_MS = 30 * MINUTE_MS
LINES_MAX = 12


class Lines:
    """Print plain lines on standard error."""

    def __init__(self, settings: Settings) -> None:
        """Start without a line."""
        self._settings = settings
        self._now = 0
        self._due = 0

    def show(self, seen: Progress) -> None:
        """Print a line every half hour of the demo's clock."""
        self._now = seen.now
        if seen.now < self._due:
            return
        self._due = seen.now - seen.now % LINE_EVERY_MS + LINE_EVERY_MS
        versions = sorted({version for version, _ in seen.replicas.values()})
        self.note(
            f"{' and '.join(versions)} serving; {seen.answered} answers, {seen.labelled} truths; {evidence(seen)}"
        )

    def note(self, text: str) -> None:
        """Print a line with the time."""
        self._settings.report(f"{clock(self._now)}  {text}" if self._now else text)


class Screen:
    """Draw everything in place, on a terminal."""

    def __init__(self, live: Live, maturity: str) -> None:
        """Draw in the part of the terminal that `live` holds."""
        self._live = live
        self._maturity = maturity
        self._lines: list[str] = []
        self._now = 0

    def show(self, seen: Progress) -> None:
        """Draw the progress."""
        self._now = seen.now
        table = Table(title=f"{clock(seen.now)} on the demo's clock", title_justify="left")
        for column in ("replica", "serves", "epoch", "answers"):
            table.add_column(column, justify="right" if column == "answers" else "left")
        for name, (version, epoch) in sorted(seen.replicas.items()):
            table.add_row(name, version, "-" if epoch is None else dotted(epoch), str(seen.counts[name]))
        counts = f"{seen.answered} answers, {seen.labelled} truths; judged {self._maturity} after they were given"
        self._live.update(Group(table, counts, evidence(seen), *self._lines[-LINES_MAX:]))

    def note(self, text: str) -> None:
        """Add a line below the table."""
        self._lines.append(f"{clock(self._now)}  {text}" if self._now else text)


@contextmanager
def view(settings: Settings, maturity: str) -> Iterator[View]:
    """Return the view for a terminal or for a file."""
    if settings.as_json or settings.quiet or not sys.stdout.isatty():
        yield Lines(settings)
        return
    with Live(console=Console(no_color=not settings.color, highlight=False), transient=True) as live:
        yield Screen(live, maturity)


def evidence(seen: Progress) -> str:
    """Return the evidence and the label coverage as text."""
    model = None if seen.status is None else seen.status.models.get(MODEL)
    if model is None:
        return "no evidence yet"
    labels = "" if model.label_coverage is None else f", {100 * model.label_coverage:.0f} % of the answers have a label"
    if (comparison := model.comparison) is not None:
        # After the alarm this is what is waited for; the alarm's own evidence starts again from nothing.
        share = comparison.evidence / comparison.threshold
        due = comparison.expected_ts
        expected = f", expected by {clock(due)}" if due and due > seen.now else ""
        return f"evidence that {comparison.target} is better than {model.desired}: {share:.2g} of 1{expected}{labels}"
    if model.evidence is None:
        return "no evidence yet"
    return f"evidence that {model.desired} got worse: {model.evidence:.2g} of 1{labels}"


def clock(ts_ms: int) -> str:
    """Return a time on the demo's clock.

    Example:
        >>> clock(1_767_571_260_000)
        '00:01'
    """
    return datetime.fromtimestamp(ts_ms / 1_000, UTC).strftime("%H:%M")


def dotted(epoch: tuple[int, ...] | list[int]) -> str:
    """Return an epoch as it is shown.

    Example:
        >>> dotted([0, 12, 1])
        '0.12.1'
    """
    return ".".join(map(str, epoch))


def print_tables(
    settings: Settings,
    phases: tuple[PhaseFacts, ...],
    decisions: list[Decision],
    replicas: dict[str, tuple[str, list[int] | None]],
) -> None:
    """Print the losses of the models, the decisions, and what the replicas serve."""
    console = Console(no_color=not settings.color, highlight=False, width=None if sys.stdout.isatty() else 100)
    did = _table("What the models did (share of wrong answers)", ("phase", "version", "role"), ("answers", "wrong"))
    for phase in phases:
        did.add_row(phase.phase, phase.version, phase.role, str(phase.predictions), f"{100 * phase.zero_one:.1f} %")
    console.print(did)
    acts = _table("What the monitor decided", ("clock", "verdict", "reason", "action"), ("labelled answers",))
    for decision in decisions:
        target = f" to {decision.to}" if decision.to else ""
        labelled = str(decision.outcomes)
        acts.add_row(clock(decision.ts), decision.verdict, decision.reason, decision.action + target, labelled)
    console.print(acts if decisions else "The monitor decided nothing.")
    obeyed = _table("What the replicas serve", ("replica", "version", "under the command of epoch"), ())
    for name, (version, epoch) in replicas.items():
        obeyed.add_row(name, version, "-" if epoch is None else dotted(epoch))
    console.print(obeyed)


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in left:
        table.add_column(column)
    for column in right:
        table.add_column(column, justify="right")
    return table
