"""`unship explain`: one page on one decision, from the decision alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import click
import msgspec

from actions.journal import rests_on
from actions.reasons import meaning_of
from console.logs import configured_log, is_log, open_topics
from console.sentences import clean, sentence
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import Config
from streams.recordings.lines import records_of
from streams.recordings.replay import open_recording
from unship.errors import RecordingError

Decision = dict[str, Any]


def explain_command(settings: Settings, wanted: str, source: str | None) -> Exit:
    """Print the page of a decision."""
    config = load(settings.config)
    if source is None:
        source = configured_log(settings, config)
    with _lines_of(settings, config, source) as lines:
        decision = find_decision(lines, wanted)
    if decision is None:
        none = "there is no decision yet" if wanted == "last" else f"there is no decision {wanted}"
        raise RecordingError(f"{source}: {none}")
    if settings.as_json:
        click.echo(msgspec.json.encode(decision).decode())
    else:
        click.echo(page(decision))
    return Exit.GOOD


@contextmanager
def _lines_of(settings: Settings, config: Config, source: str) -> Iterator[Iterable[bytes]]:
    """Open what holds decisions: of a log only its journal is read."""
    if is_log(source):
        with open_topics(settings, config, source) as topics:
            numbers = range(topics.partitions("decisions"))
            records = chain.from_iterable(records_of(topics, "decisions", number) for number in numbers)
            yield (taken.value or b"" for taken in sorted(records, key=lambda taken: taken.append_ts))
    else:
        with open_recording(source) as stream:
            yield stream


def find_decision(lines: Iterable[bytes], wanted: str) -> Decision | None:
    """Return the decision with an id, or the last one for `last`."""
    found = None
    for line in lines:
        if b'"decision"' not in line:
            continue
        try:
            entry = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(entry, dict) and entry.get("type") == "decision":
            found = entry if wanted in ("last", entry.get("id")) else found
            if wanted == entry.get("id"):
                return found
    return found if wanted == "last" else None


def page(decision: Decision) -> str:
    """Return one page of text on a decision.

    Raises:
        RecordingError: if the decision lacks what every decision has.
    """
    try:
        return "\n".join(_lines(decision))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"the decision is damaged: {error!r}") from error


def _lines(decision: Decision) -> list[str]:
    evidence = decision["evidence"]
    ts = datetime.fromtimestamp(decision["ts"] / 1000, UTC).isoformat(timespec="milliseconds")
    epoch = ".".join(map(str, decision["epoch"]))
    lines = [
        sentence(decision),
        "",
        f"{clean(decision['id'])}  {clean(decision['model'])} {clean(decision['version'])}  at {ts}  epoch {epoch}",
        f"  verdict   {decision['verdict']}; action {decision['action']} (mode {decision['mode']})",
        f"  reason    {decision['reason']}: {meaning_of(decision['reason'])}",
        f"  counted   {decision['outcomes']} labelled answers since {clean(decision['version'])} went live",
    ]
    if "missing" in evidence:
        lines.append(f"  missing   {clean(str(evidence['missing']))}")
    if "alarm" in evidence:
        lines += _alarm(evidence["alarm"])
    if "detectors" in evidence:
        lines += _detectors(evidence["detectors"] or {})
    if evidence.get("comparison"):
        lines += _comparison(evidence["comparison"])
    if "sources" in evidence:
        lines += _sources(evidence["sources"])
    lines += _slices(evidence.get("slices") or [])
    if "mix" in evidence:
        lines.append(
            f"  requests  more with {clean(evidence['mix']['dimension'])} {clean(evidence['mix']['value'])} than before"
        )
    if "label_coverage" in evidence:
        lines.append(
            f"  labels    {100 * evidence['label_coverage']:.1f} % of the newest judged answers have one "
            f"(maturity {clean(evidence['maturity'])})"
        )
    if "operator" in evidence:
        who = evidence["operator"]
        lines.append(f"  operator  {clean(who['act'])} by {clean(who['by'])}: {clean(who['reason'])}")
    digests, provenance = decision["digests"], decision["provenance"]
    proof = f"{clean(rests_on(provenance))}, ledger records 0..{provenance['ledger'][1]}"
    lines += [
        f"  proof     {proof}",
        f"            digests: ledger {digests['ledger'][:16]}, configuration {digests['config'][:16]}",
        f"            reproduce it with: unship audit RECORDING --decision {clean(decision['id'])}",
    ]
    return lines


def _mean(entry: dict[str, Any] | None) -> str:
    if not entry or entry["mean"] is None:
        return "unknown"
    return f"{entry['mean']:.4f} (n={entry['n']:.0f})"


def _of(entry: dict[str, Any]) -> str:
    return f"evidence {entry['evidence']:.3g} of {entry['threshold']:.3g}"


def _alarm(alarm: dict[str, Any]) -> list[str]:
    where = (
        "all requests" if not alarm["slice"] else ", ".join(f"{clean(k)}={clean(v)}" for k, v in alarm["slice"].items())
    )
    since = datetime.fromtimestamp(alarm["change_ts"] / 1000, UTC).isoformat(timespec="seconds")
    return [
        f"  why       {clean(alarm['detector'])} on {clean(alarm['loss'])}, {where}: {_of(alarm)}",
        f"            since {since}: {_mean(alarm['since_change'])}",
        f"            before: {_mean(alarm['baseline'])}, from {clean(alarm['basis'])}",
    ]


def _detectors(detectors: dict[str, Any]) -> list[str]:
    lines = [
        f"  reference the deployment's for {clean(loss)} is ignored: {_mean(entry['ignored_reference'])} is worse than "
        "the version's own first outcomes"
        for loss, entry in (detectors.get("e_detector") or {}).items()
        if isinstance(entry, dict) and "ignored_reference" in entry
    ]
    lines += [
        f"  promise   {clean(detectors.get('promise', 'unknown'))}",
        f"            {clean(detectors.get('decides', 'nothing'))} decides",
    ]
    for name, entry in detectors.items():
        if isinstance(entry, dict) and name != "e_detector":
            for loss, opinion in entry.items():
                lines.append(
                    f"            second opinion of {clean(name)} on {clean(loss)}: {opinion['alarms']} alarms"
                )
    return lines


def _comparison(comparison: dict[str, Any]) -> list[str]:
    better = "yes" if comparison["evidence"] >= comparison["threshold"] else "not shown"
    if comparison["basis"] == "record":
        return _with_record(comparison, better)
    return [
        f"  would going back help?  {better}: {_of(comparison)} ({comparison['basis']}, {comparison['role']})",
        f"            {clean(comparison['target'])} at the same time: {_mean(comparison['target_since_change'])}, "
        f"the judged version: {_mean(comparison['candidate'])}",
    ]


def _with_record(comparison: dict[str, Any], better: str) -> list[str]:
    record, target = comparison["record"], clean(comparison["target"])
    since = datetime.fromtimestamp(record["since_ts"] / 1000, UTC).isoformat(timespec="seconds")
    today = record["today"]
    by = f", as {clean(today['dimension'])} is mixed today" if today["dimension"] else ""
    return [
        f"  would going back help?  by the past, {better}: {_of(comparison)} (nothing answers beside it now)",
        f"            {target} when it served, from {since} on: {_mean(record)}",
        f"            that is{by}: {_mean(today)}; the judged version: {_mean(comparison['candidate'])}",
    ]


def _sources(sources: Any) -> list[str]:
    if sources == 0:
        return ["  sources   none: this loss needs no label"]
    if not isinstance(sources, dict):
        return [f"  sources   {sources}"]
    lines = []
    for name, entry in sources.items():
        without = entry["without"]
        agrees = "shows without it" if without["agrees"] else "does not show without it"
        lines.append(
            f"  source    {clean(name)}: {100 * entry['share']:.0f} % of the labels; "
            f"the rise {agrees} ({without['rise']:+.3f})"
        )
    return lines


def _slices(slices: list[dict[str, Any]]) -> list[str]:
    lines = []
    for entry in slices[:3]:
        name = ", ".join(f"{clean(k)}={clean(v)}" for k, v in entry["slice"].items())
        mark = "singled out" if entry["singled_out"] else "not singled out"
        lines.append(
            f"  slice     {name}: evidence {entry['evidence']:.3g}, {mark}; "
            f"{_mean(entry['since_change'])}, before {_mean(entry['baseline'])}"
        )
    return lines
