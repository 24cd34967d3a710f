"""`unship status`: what should serve and what does, from the log alone; the monitor need not be running."""

from typing import Any

import click
import msgspec

from console.running import embedded_folder
from console.sentences import clean
from streams.config_file import load
from streams.live import STATUS_KEY
from streams.status import ModelStatus, Status
from unship.codec import decode_value
from unship.commands import Command, decode_command
from unship.embedded import EmbeddedLog
from unship.embedded_file import FILE_NAME
from unship.errors import ConfigurationError
from unship.events import Ack, Epoch


def status_command(settings: Any, wanted: str | None) -> int:
    """Print the status; 1 if a replica serves something else than it should, or refuses the newest command."""
    folder = embedded_folder(settings, load(settings.config))
    if not (folder / FILE_NAME).is_file():
        raise ConfigurationError(f"{folder}: there is no log; start one with: unship run --log embedded:{folder}")
    with EmbeddedLog(folder) as log:
        record = log.latest("snapshots").get(STATUS_KEY)
        acks = [decode_value("ack", entry.value) for entry in log.latest("acks").values()]
        commands = [decode_command(entry.value) for entry in log.latest("control").values()]
    status = Status(-1, {}, {}, {}) if record is None else msgspec.json.decode(record.value or b"", type=Status)
    if wanted is not None and wanted not in status.models:
        raise ConfigurationError(f"no model {clean(wanted)} is known; known are {', '.join(map(clean, status.models))}")
    models = {name: model for name, model in status.models.items() if wanted in (None, name)}
    replicas = {name: _replicas(name, acks) for name in models}
    epochs = {command.model: command.epoch for command in commands if isinstance(command, Command)}
    obeying = {name: _obeying(models[name], replicas[name], epochs.get(name)) for name in models}
    if settings.as_json:
        shown = {name: {**msgspec.to_builtins(model), "replicas": replicas[name]} for name, model in models.items()}
        click.echo(msgspec.json.encode({"models": shown, "rejected": status.rejected}).decode())
    else:
        click.echo("\n".join(_lines(models, replicas, obeying)) or "nothing has been seen yet")
    return 0 if all(obeying[name] == len(replicas[name]) for name in models) else 1


def _replicas(model: str, acks: list[Any]) -> dict[str, dict[str, Any]]:
    found = [ack for ack in acks if isinstance(ack, Ack) and ack.model == model]
    return {
        ack.replica: {"version": ack.serving, "stage": ack.stage, "epoch": list(ack.epoch)}
        for ack in sorted(found, key=lambda ack: ack.replica)
    }


def _obeying(model: ModelStatus, replicas: dict[str, dict[str, Any]], epoch: Epoch | None) -> int:
    """Return how many replicas serve what is desired and do not refuse the newest command.

    Who refuses every command, for it trusts other keys, serves the right version only until the next one.
    """
    return sum(
        replica["version"] == model.desired
        and not (replica["stage"] == "refused" and epoch not in (None, tuple(replica["epoch"])))
        for replica in replicas.values()
    )


def _lines(models: dict[str, ModelStatus], replicas: dict[str, dict[str, Any]], obeying: dict[str, int]) -> list[str]:
    lines = [f"{'MODEL':<20} {'DESIRED':<12} {'REPLICAS':<10} {'LABELS':<8} {'EVIDENCE':<10} STATE"]
    for name, model in models.items():
        labels = "-" if model.label_coverage is None else f"{100 * model.label_coverage:.0f} %"
        evidence = "-" if model.evidence is None else f"{model.evidence:.2g} of 1"
        lines.append(
            f"{clean(name):<20} {clean(model.desired or '-'):<12} {f'{obeying[name]}/{len(replicas[name])}':<10} "
            f"{labels:<8} {evidence:<10} {model.state}"
        )
    return lines
