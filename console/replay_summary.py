"""Report at the end of a replay what was found of each version, what was not used, and which lines to mend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from console.sentences import clean
from console.tables import aligned
from streams.fold.summary import VersionSummary
from streams.recordings.replay import Refusals, RefusedLine
from unship.rejections import DECODING_CODES, RejectCode

_UNUSED = DECODING_CODES | {
    RejectCode.FUTURE_TS,
    RejectCode.UNMATCHED_FEEDBACK,
    RejectCode.LATE_FEEDBACK,
    RejectCode.MISROUTED,
    RejectCode.MODEL_LIMIT,
    RejectCode.VERSION_LIMIT,
}
"""Codes of which each counts one line that was of no use; the others count what was used in part, or repeats."""

HEADINGS = ("model", "version", "part", "labelled", "usual loss", "since change", "smallest rise", "state")


def unused_lines(counts: Mapping[str, int]) -> int:
    """Return how many lines were of no use."""
    return sum(counts.get(code, 0) for code in _UNUSED)


def table(rows: Sequence[VersionSummary]) -> Iterator[str]:
    """Return the lines of a table of versions."""
    return aligned([HEADINGS, *map(_cells, rows)])


def _cells(row: VersionSummary) -> tuple[str, ...]:
    usual, since = ("" if mean is None else f"{mean:.4f}" for mean in (row.usual, row.since_change))
    shows = "" if row.detectable is None or row.detectable.rise is None else f"{row.detectable.rise:.4f}"
    return clean(row.model), clean(row.version), row.part, f"{row.outcomes:,}", usual, since, shows, row.state


def refusals(refused: Iterable[RefusedLine]) -> Iterator[str]:
    """Yield a sentence for each refused line: its number, the field, and what was expected there."""
    for line, rejection in sorted(refused, key=lambda entry: entry.line):
        why = clean(rejection.detail) or rejection.code.meaning
        yield f"line {line}: {rejection.code}: {why}"


def no_event(refused: Refusals) -> str:
    """Return what to do with a file of which no line is an event."""
    if refused.begin.lstrip().startswith(b"["):
        return "it is one JSON array; write its elements as lines: jq -c '.[]' FILE"
    return next(refusals(refused.first))


def remarks(configured: Iterable[str], rows: Sequence[VersionSummary], counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is likely to be a mistake of the configuration or of the file."""
    seen = {row.model for row in rows}
    others = ", ".join(map(clean, sorted(seen))) or "none"
    for name in sorted(set(configured) - seen):
        yield f"model {clean(name)} of the configuration is in no line; models in the lines: {others}"
    if taken_back := counts.get(RejectCode.STILL_SERVED, 0):
        yield (
            f"{taken_back:,} answers of versions that were taken back are in the lines and not judged: a recording "
            "goes on as it went; under policy.mode observe all of it is judged"
        )
    unmatched, joined = counts.get(RejectCode.UNMATCHED_FEEDBACK, 0), sum(row.outcomes for row in rows)
    if unmatched > joined:
        yield (
            f"{unmatched:,} labels have no prediction, {joined:,} have one: are the lines in order of time, and "
            "do the ids of both agree?"
        )
