"""Run `unship keys`: make, list and revoke keys."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from console.logs import keys_folder
from console.settings import Exit, Settings
from console.times import time_ms
from streams.config.file import load
from unship.errors import ConfigurationError
from unship.keys import TRUST_FILE, add_key, load_trust, new_keys, revoke_key
from unship.log.link import wall_ms
from unship.signing import Revoked, Role


def new_command(settings: Settings, audience: str, role: Role | None) -> Exit:
    """Make all keys in the configured folder, or one more for a role."""
    folder = keys_folder(settings, load(settings.config))
    if role is None:
        made = ", ".join(key.name for key in new_keys(folder, audience).keys)
    else:
        key = add_key(folder, role)
        made = f"{key.name} ({key.id})"
    settings.report(f"keys: {made} in {folder}; give replicas {folder / TRUST_FILE} only")
    return Exit.GOOD


def list_command(settings: Settings) -> Exit:
    """Print the keys of the configured folder's trust.json: name, id, roles, and from when on each is revoked."""
    trust = load_trust(keys_folder(settings, load(settings.config)) / TRUST_FILE)
    rows: list[dict[str, Any]] = [
        {
            "name": key.name,
            "id": key.id,
            "roles": list(key.roles),
            "revoked": None if key.revoked is None else msgspec.to_builtins(key.revoked),
        }
        for key in trust.keys
    ]
    if settings.as_json:
        click.echo(msgspec.json.encode({"audience": trust.audience, "keys": rows}).decode())
        return Exit.GOOD
    click.echo(f"audience {trust.audience}")
    for row in rows:
        revoked = "" if row["revoked"] is None else f"  revoked {msgspec.json.encode(row['revoked']).decode()}"
        click.echo(f"{row['name']:<16} {row['id']}  {', '.join(row['roles'])}{revoked}")
    return Exit.GOOD


def revoke_command(settings: Settings, name: str, since: str | None, epoch: str | None) -> Exit:
    """Revoke a key in the configured folder's trust.json."""
    folder = keys_folder(settings, load(settings.config))
    revoked = Revoked(
        wall_ms() if since is None else time_ms("--from", since), None if epoch is None else _epoch(epoch)
    )
    key = revoke_key(folder, name, revoked)
    settings.report(
        f"keys: {key.name} ({key.id}) is revoked; copy {folder / TRUST_FILE} to the replicas, which read it again by "
        f"themselves, and make another key: unship keys new --role {key.roles[0]}"
    )
    return Exit.GOOD


def _epoch(text: str) -> tuple[int, int, int]:
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 15 for part in parts):
        raise ConfigurationError(f"--from-epoch: expected three numbers such as 0.458.0, was {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])
