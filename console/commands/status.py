"""Run `unship status`: show desired and actual versions from the log alone; the monitor need not be running."""

from __future__ import annotations

from collections import Counter
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
from streams.config.resolved import Config
from streams.fold.status import ModelStatus, Status
from streams.fold.status_records import merged
from streams.recordings.lines import Taken
from unship.codec import decode_value
from unship.errors import ConfigurationError
from unship.events import Ack
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.read_only import ReadOnlyLog
from unship.log.kafka.access import SCHEME

_CUT = {"replicas": "replicas", "outcomes": "versions with outcomes", "quarantine": "versions in quarantine"}


def status_command(settings: Settings, wanted: str | None, *, decayed: bool = False) -> Exit:
    """Print the status; FINDING if a replica has not converged, a partition is halted or, if asked for, one decayed."""
    status, acks = read_reported(*settings_for_reading(settings, None))
    if wanted is not None and wanted not in status.models:
        raise unknown_model(wanted, status)
    models = {name: model for name, model in status.models.items() if wanted in (None, name)}
    replicas = {name: living(name, model, acks, status.clock) for name, model in models.items()}
    faults = {name: model.lagging(replicas[name]) for name, model in models.items()}
    if settings.as_json:
        shown = {name: _shown(model, replicas[name], faults[name]) for name, model in models.items()}
        more = {name: each for name, each in (("halted", status.halted), ("unread", status.unread)) if each}
        click.echo(msgspec.json.encode({"models": shown, "rejected": status.rejected, **more}).decode())
    else:
        lines = [f"halted: {clean(why)}" for why in status.halted] + [clean(why) for why in status.unread]
        lines += _lines(models, replicas, faults)
        click.echo("\n".join(lines))
    if decayed and any(is_degraded(model.state) for model in models.values()):
        return Exit.FINDING
    return Exit.FINDING if status.halted or status.unread or any(faults.values()) else Exit.GOOD


def is_degraded(state: str) -> bool:
    """Return whether a state is that of a version that got worse.

    >>> is_degraded("NOT_CONFIRMED"), is_degraded("LEARNING"), is_degraded("of a later program")
    (True, False, False)
    """
    reason = Reason.__members__.get(state)
    return reason is not None and reason.verdict is Verdict.DEGRADED


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


def _shown(model: ModelStatus, replicas: dict[str, Replica], faults: dict[str, str]) -> dict[str, Any]:
    """Return a model as JSON."""
    each = {}
    for name, replica in replicas.items():
        version, epoch = replica.serves()
        each[name] = {"version": version, "stage": replica.stage(), "epoch": epoch}
    return {**msgspec.to_builtins(model), "replicas": each, "lagging": faults}


def _lines(
    models: dict[str, ModelStatus], replicas: dict[str, dict[str, Replica]], faults: dict[str, dict[str, str]]
) -> list[str]:
    if not models:
        return ["no model has been seen yet"]
    lines = [f"{'MODEL':<20} {'DESIRED':<12} {'REPLICAS':<10} {'LABELS':<8} {'EVIDENCE':<10} STATE"]
    for name, model in models.items():
        obeying = len(replicas[name]) - len(faults[name])
        labels = "-" if model.label_coverage is None else f"{100 * model.label_coverage:.0f} %"
        evidence = "-" if model.evidence is None else f"{model.evidence:.2g} of 1"
        lines.append(
            f"{clean(name):<20} {clean(model.desired or '-'):<12} {f'{obeying}/{len(replicas[name])}':<10} "
            f"{labels:<8} {evidence:<10} {clean(model.state)}"
        )
    for name, model in models.items():
        lines += [f"{clean(name)}: {count:,} more {_CUT.get(kind, clean(kind))}" for kind, count in model.cut.items()]
    for name, lagging in faults.items():
        lines += [
            f"{clean(name)}: {clean(replica)} has not converged: {clean(why)}" for replica, why in lagging.items()
        ]
    return lines
