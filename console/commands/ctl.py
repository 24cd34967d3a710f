"""`unship ctl`: signed orders of an operator."""

import getpass
from typing import Any

import click
import msgspec

from console.commands.emit import append
from console.commands.status import living, read_told, unknown_model
from console.logs import keys_folder
from console.sentences import clean
from console.settings import Settings
from streams.config.file import load
from streams.config.resolved import Config
from unship.codec import encode_line
from unship.errors import ConfigurationError
from unship.events import OperatorAct
from unship.keys import OPERATOR_FILE, load_private_key
from unship.signing import OPERATOR_TYPE, sign


def renew_command(settings: Settings, model: str, reason: str, incarnation: int | None) -> int:
    """Begin a new incarnation of a model's epochs."""
    config = load(settings.config)
    key = load_private_key(keys_folder(settings, config) / OPERATOR_FILE)
    chosen = _next(settings, config, model, incarnation)
    act = OperatorAct(act="renew", model=model, reason=reason, by=getpass.getuser(), incarnation=chosen)
    value = encode_line(act).rstrip(b"\n")
    append(settings, config, "operator", model.encode(), value, tuple(sign(value, key, OPERATOR_TYPE)))
    if settings.as_json:
        click.echo(msgspec.json.encode({"model": model, "incarnation": chosen}).decode())
    else:
        settings.tell(f"ctl: {clean(model)}: incarnation {chosen} begins as soon as the monitor reads this")
    return 0


def _next(settings: Settings, config: Config, model: str, wanted: int | None) -> int:
    """Return the incarnation that is wanted, or the one after that of the ledger.

    Raises:
        ConfigurationError: nobody knows the model, what is wanted has begun, or nothing is said and its replicas say
            that they know more. What they say is signed by nobody, and an incarnation cannot be taken back.
    """
    status, acks = read_told(settings, config)
    known = status.models.get(model)
    if known is None:
        raise unknown_model(model, status)
    if wanted is not None:
        if wanted <= known.epoch[0]:
            raise ConfigurationError(
                f"--incarnation {wanted}: {clean(model)} is in incarnation {known.epoch[0]}; name a higher one"
            )
        return wanted
    replicas = living(model, known, acks, status.clock)
    claimed = max((max(_epochs(replica))[0] for replica in replicas.values()), default=0)
    following = known.epoch[0] + 1
    if claimed >= following:
        raise ConfigurationError(
            f"replicas of {clean(model)} say that they know incarnation {claimed}, and this ledger is in "
            f"{known.epoch[0]}; if that is true, repeat with --incarnation {claimed + 1}"
        )
    return following


def _epochs(replica: Any) -> list[tuple[int, int, int]]:
    said = (replica.acked, replica.shown, replica.refused)
    return [(0, 0, 0), *(each.epoch for each in said if each is not None and each.epoch is not None)]
