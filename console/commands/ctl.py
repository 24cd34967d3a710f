"""Run `unship ctl`: append signed operator acts."""

from __future__ import annotations

import getpass

import click
import msgspec

from actions.replicas import Replica
from console.commands.emit import append
from console.commands.status import living, read_reported, unknown_model
from console.logs import keys_folder
from console.sentences import clean
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import Config
from unship.errors import ConfigurationError
from unship.events import OperatorAct
from unship.keys import OPERATOR_FILE, TRUST_FILE, load_private_key, load_trust, new_nonce
from unship.log.link import wall_ms
from unship.signing import sign_event

INCARNATIONS_MAX = 1_000
"""Each incarnation is an operator's order after the loss of a ledger, so a higher number is an invention."""


def renew_command(settings: Settings, model: str, reason: str, incarnation: int | None) -> Exit:
    """Start a new incarnation of a model's epochs."""
    config = load(settings.config)
    key = load_private_key(keys_folder(settings, config) / OPERATOR_FILE)
    chosen = _next(settings, config, model, incarnation)
    act = OperatorAct(act="renew", model=model, reason=reason, by=getpass.getuser(), incarnation=chosen)
    audience = load_trust(keys_folder(settings, config) / TRUST_FILE).audience
    value, headers = sign_event(act, key, audience, wall_ms(), new_nonce())
    append(settings, config, "operator", model.encode(), value, headers)
    if settings.as_json:
        click.echo(msgspec.json.encode({"model": model, "incarnation": chosen}).decode())
    else:
        settings.report(f"ctl: {clean(model)}: incarnation {chosen} starts when the monitor reads the act")
    return Exit.GOOD


def _next(settings: Settings, config: Config, model: str, wanted: int | None) -> int:
    """Return the incarnation asked for, or the one after that of the ledger.

    Raises:
        ConfigurationError: The model is unknown; the incarnation asked for has started already; or none was asked for
            and most replicas acknowledge a higher one. Acks are not signed, and an incarnation cannot be undone.
    """
    status, acks = read_reported(settings, config)
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
    claims = sorted(max(_epochs(replica))[0] for replica in replicas.values())
    # What a single one claims proves nothing, and no operator has begun so many.
    claimed = claims[(len(claims) - 1) // 2] if claims else 0
    following = known.epoch[0] + 1
    if following <= claimed <= INCARNATIONS_MAX:
        raise ConfigurationError(
            f"replicas of {clean(model)} acknowledge incarnation {claimed}, and this ledger is in {known.epoch[0]}; "
            f"if their acks are genuine, repeat with --incarnation {claimed + 1}"
        )
    return following


def _epochs(replica: Replica) -> list[tuple[int, int, int]]:
    known = (replica.acked, replica.shown, replica.refused)
    return [(0, 0, 0), *(each.epoch for each in known if each is not None and each.epoch is not None)]
