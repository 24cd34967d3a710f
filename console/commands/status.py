"""Run `unship status`: show desired and actual versions, and how old that is, from the log alone.

The monitor need not be running; then the status is STALE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from actions.facts import ReplicaChange
from actions.reasons import Reason, Verdict
from actions.replicas import Replica, Replicas
from console.logs import configured_log, embedded_folder, kafka_access, settings_for_reading
from console.sentences import clean
from console.settings import Exit, Settings
from console.status_lines import model_lines, monitor_line, replicas_shown, silent, stale
from console.times import shown_time
from streams.config.resolved import Config
from streams.fold.status import ModelStatus, Seen, Status
from streams.fold.status_records import merged
from streams.recordings.lines import Taken
from unship.codec import decode_value
from unship.errors import ConfigurationError
from unship.events import Ack
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.read_only import ReadOnlyLog
from unship.log.kafka.access import SCHEME
from unship.log.link import wall_ms

_CUT = {
    "replicas": "replicas",
    "outcomes": "versions with outcomes",
    "quarantine": "versions in quarantine",
    "not_judged": "versions with outcomes that were not judged",
}


class Shown(msgspec.Struct, frozen=True):
    """Hold what is shown of a model: its status, its replicas, what is wrong with these, and why it is too old."""

    model: ModelStatus
    replicas: dict[str, Replica]
    faults: dict[str, str]
    silent: dict[str, int]
    stale: list[str]

    @property
    def state(self) -> str:
        """Return the state, and STALE where that is too old to rely on."""
        return f"{self.model.state}, STALE" if self.stale else self.model.state

    @property
    def is_worse(self) -> bool:
        """Return whether the version that serves got worse, by the newest decision on it."""
        reason = Reason.__members__.get(self.model.state)
        return reason is not None and reason.verdict is Verdict.DEGRADED


def status_command(
    settings: Settings, wanted: str | None, now_ms: Callable[[], int] = wall_ms, exit_code: bool = False
) -> Exit:
    """Print the status at the time that `now_ms` returns.

    FINDING if a replica has not converged, a ledger partition is halted, or the status of a model is stale; with
    `exit_code` also if a version that serves is DEGRADED.
    """
    status, acks = read_reported(*settings_for_reading(settings, None))
    if wanted is not None and wanted not in status.models:
        raise unknown_model(wanted, status)
    now = now_ms()
    shown = {name: _of(name, status, acks, now) for name in status.models if wanted in (None, name)}
    if settings.as_json:
        models = {name: _as_json(each) for name, each in shown.items()}
        more = {name: each for name, each in (("halted", status.halted), ("unread", status.unread)) if each}
        report = {"models": models, "rejected": status.rejected, "monitor": _longest_silent(status), **more}
        click.echo(msgspec.json.encode(report).decode())
    else:
        lines = [f"halted: {clean(why)}" for why in status.halted] + [clean(why) for why in status.unread]
        lines += [*_table(shown), *_details(shown, now)]
        if status.models:
            lines.append(monitor_line(_longest_silent(status), now))
        click.echo("\n".join(lines))
    found = any(each.faults or each.stale or (exit_code and each.is_worse) for each in shown.values())
    return Exit.FINDING if status.halted or status.unread or found else Exit.GOOD


def _of(name: str, status: Status, acks: list[Taken], now: int) -> Shown:
    model = status.models[name]
    replicas = living(name, model, acks, status.clock)
    old = stale(model, replicas, status.seen(name), now)
    return Shown(model, replicas, model.lagging(replicas), silent(replicas, now), old)


def _longest_silent(status: Status) -> Seen | None:
    """Return what the monitor reported last; where there are several, of the one that is silent for longest."""
    return min(status.monitors.values(), key=lambda seen: seen.seen_ts, default=None)


def unknown_model(wanted: str, status: Status) -> ConfigurationError:
    """Return the error that names an unknown model."""
    known = ", ".join(map(clean, status.models)) or "none yet; is the monitor running?"
    return ConfigurationError(f"no model {clean(wanted)} is known; known are {known}")


def read_reported(settings: Settings, config: Config) -> tuple[Status, list[Taken]]:
    """Return the newest status of the monitor, and the newest ack of each replica."""
    if configured_log(settings, config).startswith(SCHEME):
        from streams.kafka.snapshots import read_status

        return read_status(kafka_access(settings, config))
    return _embedded(embedded_folder(settings, config))


def _embedded(folder: Path) -> tuple[Status, list[Taken]]:
    """Return the newest status of the monitor, and the newest ack of each replica."""
    if not (folder / FILE_NAME).is_file():
        raise ConfigurationError(f"{folder}: there is no log; start one with: unship --log embedded:{folder} run")
    with ReadOnlyLog(folder) as log:
        records = log.latest("snapshots")
        entries = sorted(log.latest("acks").values(), key=lambda entry: entry.offset)
    status = merged({key: record.value for key, record in records.items()})
    return status, [Taken("acks", 0, entry.offset, entry.append_ts, entry.key, entry.value) for entry in entries]


def living(model: str, status: ModelStatus, acks: list[Taken], clock: int) -> dict[str, Replica]:
    """Return the live replicas in the newest status, updated by the newest ack of each.

    The monitor may lag or not run; acks follow the same rules as in the fold, so one that it has read changes nothing.
    """
    known = Replicas(dict(status.replicas))
    changes = []
    for entry in acks:
        ack = decode_value("ack", entry.value)
        if isinstance(ack, Ack) and ack.model == model:
            place = "acks", entry.partition, entry.offset
            changes.append(
                ReplicaChange(ack.replica, False, ack.stage, ack.serving, ack.epoch, ack.code, entry.append_ts, place)
            )
    now = max([clock, *(change.at for change in changes)])
    known.take(changes, now, lambda epoch: None, Counter())
    return dict(sorted(known.alive(now)))


def _as_json(shown: Shown) -> dict[str, Any]:
    """Return a model as JSON."""
    replicas = replicas_shown(shown.replicas, shown.model.left)
    known = {**msgspec.to_builtins(shown.model), "state": shown.state, "replicas": replicas, "lagging": shown.faults}
    return known | {"silent": sorted(shown.silent), "stale": shown.stale}


def _table(models: Mapping[str, Shown]) -> Iterator[str]:
    if not models:
        yield "no model has been seen yet"
        return
    yield f"{'MODEL':<20} {'DESIRED':<12} {'REPLICAS':<10} {'LABELS':<8} {'EVIDENCE':<10} STATE"
    for name, shown in models.items():
        model = shown.model
        obeying = len(shown.replicas) - len(shown.faults)
        labels = "-" if model.label_coverage is None else f"{100 * model.label_coverage:.0f} %"
        evidence = "-" if model.evidence is None else f"{model.evidence:.2g} of 1"
        yield (
            f"{clean(name):<20} {clean(model.desired or '-'):<12} {f'{obeying}/{len(shown.replicas)}':<10} "
            f"{labels:<8} {evidence:<10} {clean(shown.state)}"
        )


def _details(models: Mapping[str, Shown], now: int) -> Iterator[str]:
    for name, shown in models.items():
        model = shown.model
        lines = [f"STALE: {why}" for why in shown.stale]
        lines += model_lines(model, now)
        lines += [f"{clean(version)} answers live as well: {clean(state)}" for version, state in model.beside.items()]
        lines += [f"{n:,} outcomes of {clean(version)} were not judged" for version, n in model.not_judged.items()]
        lines += [f"{count:,} more {_CUT.get(kind, clean(kind))}" for kind, count in model.cut.items()]
        if model.unseen:
            answers = clean(", ".join(model.unseen))
            lines.append(f"UNSEEN_OUTCOMES: no truth ever came for answers {answers}, though for others")
        lines += [f"{clean(replica)} has not converged: {clean(why)}" for replica, why in shown.faults.items()]
        lines += [
            f"{clean(replica)} has acknowledged nothing since {shown_time(heard)}"
            for replica, heard in shown.silent.items()
        ]
        yield from (f"{clean(name)}: {line}" for line in lines)
