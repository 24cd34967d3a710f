"""Run `unship ctl`: append signed operator acts, try them out, and wait until replicas obey."""

from __future__ import annotations

import getpass
from typing import Any

import click
import msgspec

from actions.replicas import Replica
from console.commands.emit import append
from console.commands.operating.following import Following
from console.commands.operating.tails import open_tail
from console.commands.operating.waiting import Clocks, as_json, follow, report
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


class How(msgspec.Struct, frozen=True):
    """Hold how an act is given: whether unknown names are appended all the same, whether it is only tried out, and how
    many seconds are waited for replicas; None to wait for nothing."""

    force: bool = False
    dry_run: bool = False
    wait_s: float | None = None


def ctl_command(
    settings: Settings, act: Act, model: str, reason: str, asked: Asked, how: How, clocks: Clocks | None = None
) -> Exit:
    """Append a signed act, and print it; one that names what nobody knows only if it is forced or overrides that."""
    _check_options(act, asked)
    if how.dry_run and how.wait_s is not None:
        raise ConfigurationError("--wait does not go with --dry-run, which appends nothing; leave one of them out")
    config, by = load(settings.config), getpass.getuser()
    folder = keys_folder(settings, config)
    if act == "renew" and not (how.force and asked.incarnation is not None):
        asked = msgspec.structs.replace(asked, incarnation=_next(settings, config, model, asked.incarnation))
    elif act != "renew" and not (how.force or asked.override):
        _check_names(settings, config, model, asked.to or asked.version)
    event = OperatorAct(act=act, model=model, reason=reason, by=by, **msgspec.structs.asdict(asked))
    if how.dry_run:
        from console.commands.operating.dry_run import dry_run

        trust_file = folder / TRUST_FILE
        audience = load_trust(trust_file).audience if trust_file.exists() else "default"
        return dry_run(settings, config, event, audience, wall_ms())
    key, trust = load_private_key(folder / OPERATOR_FILE), load_trust(folder / TRUST_FILE)
    value, headers = sign_event(event, key, trust.audience, wall_ms(), new_nonce())
    checked = decode_value("operator", value)
    if isinstance(checked, Rejection):
        raise ConfigurationError(f"the act would be rejected: {checked.code} {checked.detail}".rstrip())
    if how.wait_s is None:
        place = append(settings, config, "operator", model.encode(), value, headers)
        _print(settings, event, asked, place, value)
        return Exit.GOOD
    # Before the act, so that its copy in the ledger is seen.
    with open_tail(settings, config, model) as tail:
        place = append(settings, config, "operator", model.encode(), value, headers)
        if not settings.as_json:
            _print(settings, event, asked, place, value)
        following = Following(model, place, tail.partition, trust)
        sight = follow(settings, tail, following, how.wait_s, clocks or Clocks())
    if settings.as_json:
        _print(settings, event, asked, place, value, as_json(sight))
    return report(settings, model, sight, how.wait_s)


def _print(
    settings: Settings,
    event: OperatorAct,
    asked: Asked,
    placed: tuple[int, int],
    value: bytes,
    wait: dict[str, Any] | None = None,
) -> None:
    """Print the act that was appended, and how a wait for it ended."""
    model, (partition, offset) = event.model, placed
    if settings.as_json:
        place = {"topic": "operator", "partition": partition, "offset": offset}
        # The incarnation is next to the act too, where earlier programs look for it.
        named = {"model": model} if asked.incarnation is None else {"model": model, "incarnation": asked.incarnation}
        waited = {} if wait is None else {"wait": wait}
        click.echo(msgspec.json.encode({**named, **place, "act": msgspec.Raw(value), **waited}).decode())
        return
    what = ", ".join(f"{name} {value}" for name, value in msgspec.to_builtins(asked).items())
    shown = f" ({clean(what)})" if what else ""
    click.echo(f"{event.act} {clean(model)}{shown} by {clean(event.by)}: {clean(event.reason)}")
    settings.report(f"ctl: appended to operator, partition {partition}, offset {offset}; the monitor follows it")


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
        if model in config.models and version is None:
            # It is configured, and has no event yet.
            return
        known = ", ".join(map(clean, status.models)) or "none yet; is the monitor running?"
        raise ConfigurationError(f"no model {clean(model)} is known; known are {known}; correct it, or add --override")
    replicas = living(model, found, acks, status.clock)
    ready = {name for replica in replicas.values() for name in replica.ready}
    versions = sorted({*found.versions, *found.outcomes, *found.quarantine, *ready, *([found.desired or ""])} - {""})
    if version is not None and version not in versions:
        shown = ", ".join(map(clean, versions[:VERSIONS_NAMED])) + (", ..." if len(versions) > VERSIONS_NAMED else "")
        raise ConfigurationError(
            f"no version {clean(version)} of {clean(model)} is known; known are {shown or 'none'}; correct it, or add "
            "--override"
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
