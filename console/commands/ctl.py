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
from unship.codec import decode_value
from unship.errors import ConfigurationError
from unship.events import Act, OperatorAct
from unship.keys import OPERATOR_FILE, TRUST_FILE, load_private_key, load_trust, new_nonce
from unship.log.link import wall_ms
from unship.rejections import Rejection
from unship.signing import sign_event

VERSIONS_NAMED = 20

INCARNATIONS_MAX = 1_000
"""Each incarnation is an operator's order after the loss of a ledger, so a higher number is an invention."""


NEEDED = {"rollback": "to", "release": "version"}
"""The option that an act needs."""

OPTIONS = {
    "approve": ("decision", "override"),
    "reject": ("decision", "override"),
    "rollback": ("to", "override"),
    "pin": ("version", "override"),
    "unpin": ("override",),
    "release": ("version", "override"),
    "renew": ("incarnation",),
    "hold": ("override",),
    "resume": ("override",),
}
"""The options that go with each act."""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold the options of an act, as they were typed."""

    to: str | None = None
    version: str | None = None
    decision: str | None = None
    override: bool = False
    incarnation: int | None = None


def ctl_command(settings: Settings, act: Act, model: str, reason: str, asked: Asked, force: bool) -> Exit:
    """Append a signed act, and print it; one that names what nobody knows only if it is forced."""
    _check_options(act, asked)
    config, by = load(settings.config), getpass.getuser()
    folder = keys_folder(settings, config)
    key, audience = load_private_key(folder / OPERATOR_FILE), load_trust(folder / TRUST_FILE).audience
    if act == "renew" and not (force and asked.incarnation is not None):
        asked = msgspec.structs.replace(asked, incarnation=_next(settings, config, model, asked.incarnation))
    elif act != "renew" and not (force or asked.override):
        _check_names(settings, config, model, asked.to or asked.version)
    event = OperatorAct(act=act, model=model, reason=reason, by=by, **msgspec.structs.asdict(asked))
    value, headers = sign_event(event, key, audience, wall_ms(), new_nonce())
    checked = decode_value("operator", value)
    if isinstance(checked, Rejection):
        raise ConfigurationError(f"the act would be rejected: {checked.code} {checked.detail}".rstrip())
    partition, offset = append(settings, config, "operator", model.encode(), value, headers)
    if settings.as_json:
        place = {"topic": "operator", "partition": partition, "offset": offset}
        # The incarnation is next to the act too, where earlier programs look for it.
        named = {"model": model} if asked.incarnation is None else {"model": model, "incarnation": asked.incarnation}
        click.echo(msgspec.json.encode({**named, **place, "act": msgspec.Raw(value)}).decode())
    else:
        what = ", ".join(f"{name} {value}" for name, value in msgspec.to_builtins(asked).items())
        click.echo(f"{act} {clean(model)}{f' ({clean(what)})' if what else ''} by {clean(by)}: {clean(reason)}")
        settings.report(f"ctl: appended to operator, partition {partition}, offset {offset}; the monitor follows it")
    return Exit.GOOD


def _check_options(act: Act, asked: Asked) -> None:
    given = msgspec.to_builtins(asked)
    unfit = [name for name in given if name not in OPTIONS[act]]
    if unfit:
        fits = ", ".join(f"--{name}" for name in OPTIONS[act]) or "none"
        raise ConfigurationError(f"--{unfit[0]} does not go with {act}, which takes {fits}; leave it out")
    needed = NEEDED.get(act)
    if needed is not None and needed not in given:
        raise ConfigurationError(f"{act} needs --{needed} V: which version?")


def _check_names(settings: Settings, config: Config, model: str, version: str | None) -> None:
    """Refuse a model or a version that the monitor has not seen: most are mistyped.

    Raises:
        ConfigurationError: It names the known ones.
    """
    status, acks = read_reported(settings, config)
    found = status.models.get(model)
    if found is None:
        known = ", ".join(map(clean, status.models)) or "none yet; is the monitor running?"
        raise ConfigurationError(f"no model {clean(model)} is known; known are {known}; correct it, or add --force")
    replicas = living(model, found, acks, status.clock)
    ready = {name for replica in replicas.values() for name in replica.ready}
    versions = sorted({*found.versions, *found.outcomes, *found.quarantine, *ready, *([found.desired or ""])} - {""})
    if version is not None and version not in versions:
        shown = ", ".join(map(clean, versions[:VERSIONS_NAMED])) + (", ..." if len(versions) > VERSIONS_NAMED else "")
        raise ConfigurationError(
            f"no version {clean(version)} of {clean(model)} is known; known are {shown or 'none'}; correct it, or add "
            "--force"
        )


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
