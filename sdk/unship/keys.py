"""Make and read the keys: files on disk, and the one place of this library where chance comes in.

A folder of keys holds four files. `controller.key` signs commands and belongs to the monitor; `operator.key` signs
what people order and belongs to them; `deployer.key` signs deployments and belongs to what releases versions, such as a
pipeline; `trust.json` holds the public halves with their roles, is no secret, and is the only one that replicas get: a
process that verifies commands must not be able to write one.

Nothing is ever overwritten here. A lost controller key can be replaced by a new one in every `trust.json`; a key that
was overwritten by accident leaves a fleet that obeys no command, which shows on the day of the first rollback.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from unship.errors import ConfigurationError
from unship.events import Name
from unship.signing import Role, Trust, TrustedKey, public_bytes
from unship.system.files import create_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CONTROLLER_FILE = "controller.key"
OPERATOR_FILE = "operator.key"
DEPLOYER_FILE = "deployer.key"
TRUST_FILE = "trust.json"

FILE_BYTES_MAX = 65_536
"""Largest key or trust file: 64 trusted keys take about 8 KB."""

_FILE_OF: dict[Role, str] = {"controller": CONTROLLER_FILE, "operator": OPERATOR_FILE, "deployer": DEPLOYER_FILE}


class _KeyEntry(Struct, forbid_unknown_fields=True):
    """Hold one key of `trust.json`: 32 bytes in base64, and what it may sign."""

    public: str
    roles: Annotated[list[Role], Meta(min_length=1, max_length=3)]


class _TrustFile(Struct, forbid_unknown_fields=True):
    """Hold the fields of `trust.json`."""

    audience: Name
    keys: Annotated[dict[Name, _KeyEntry], Meta(min_length=1, max_length=64)]


def new_keys(folder: Path, audience: str = "default") -> Trust:
    """Make a key per role and their `trust.json` in a folder; return its content.

    The folder is made with mode 0700 and the private keys with 0600. `trust.json` is written last, so that a folder
    with one is complete.

    Args:
        folder: Where to; may exist if it is closed to others.
        audience: What binds commands to this installation, 1..128 characters; give each environment its own.

    Raises:
        ConfigurationError: One of the files exists, the folder is open to others, or it cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not 1 <= len(audience) <= 128:
        raise ConfigurationError(f"audience: {len(audience)} characters, expected 1 to 128; give it a shorter name")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be made: {error.strerror}; name a folder that can") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"{folder}: mode {mode:04o} lets others in, expected 0700; run: chmod 700 {folder}")
    for name in (*_FILE_OF.values(), TRUST_FILE):
        if os.path.lexists(folder / name):
            raise _exists(folder / name)
    keys = []
    for role, name in _FILE_OF.items():
        private_key = Ed25519PrivateKey.generate()
        _write_new(folder / name, _as_pem(private_key), 0o600)
        keys.append(TrustedKey(role, public_bytes(private_key), (role,)))
    trust = Trust(tuple(keys), audience)
    _write_new(folder / TRUST_FILE, encode_trust(trust), 0o644)
    return trust


def new_nonce() -> str:
    """Return 128 random bits as text: what makes a signed event different from any other."""
    return os.urandom(16).hex()  # noqa: TID251


def deployment_key(folder: Path) -> Ed25519PrivateKey | None:
    """Return the key of a folder that deployments are signed with, the deployer's first; None if it has neither.

    Raises:
        ConfigurationError: There is one that cannot be used.
    """
    for name in (DEPLOYER_FILE, OPERATOR_FILE):
        if (folder / name).exists():
            return load_private_key(folder / name)
    return None


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key: Ed25519 in unencrypted PKCS 8 PEM, as `new_keys` and `openssl genpkey` write it.

    Raises:
        ConfigurationError: No such file, one that everybody may read or replace, or one that holds no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, "make it with: unship keys new")
    # The group may read, because mounted secrets often belong to one; others may do nothing.
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o027:
        raise ConfigurationError(f"{path}: mode {mode:04o} opens a private key to others; run: chmod 600 {path}")
    _refuse_writable(path.parent)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The parser's message is left out: it may quote the file.
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{path}: holds no unencrypted Ed25519 private key in PEM; make one with: unship keys new"
        )
    return key


def load_trust(path: Path) -> Trust:
    """Read a `trust.json`: the trusted keys, and the audience of this installation.

    Raises:
        ConfigurationError: No such file, one that everybody may change, or its content is not what `new_keys` writes.
    """
    data = _read(path, "copy it from the folder that `unship keys new` made")
    _refuse_writable(path)
    _refuse_writable(path.parent)
    try:
        content = msgspec.json.decode(data, type=_TrustFile)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: {error}; take the trust.json that `unship keys new` wrote") from None
    keys = tuple(
        TrustedKey(name, _public(path, name, entry.public), tuple(entry.roles)) for name, entry in content.keys.items()
    )
    return Trust(keys, content.audience)


def encode_trust(trust: Trust) -> bytes:
    """Encode what `load_trust` reads, for a person to look at too."""
    entries = {key.name: _KeyEntry(base64.b64encode(key.public).decode("ascii"), list(key.roles)) for key in trust.keys}
    return msgspec.json.format(msgspec.json.encode(_TrustFile(trust.audience, entries)), indent=2) + b"\n"


def _public(path: Path, name: str, text: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (binascii.Error, ValueError):
        raise ConfigurationError(
            f"{path}: keys.{name}.public: expected 32 bytes in base64; take it from the trust.json of that key"
        ) from None
    return raw


def _as_pem(private_key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path, fix: str) -> bytes:
    try:
        if not path.is_file():
            raise ConfigurationError(f"{path}: no such file; {fix}")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}; check its owner and mode") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{path}: more than {FILE_BYTES_MAX} bytes, so not a file of keys; {fix}")
    return data


def _refuse_writable(path: Path) -> None:
    """Refuse a file or folder that everybody may write: who can replace `trust.json` commands the fleet.

    Folders with the sticky bit, such as those that secrets are mounted in, are fine.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o002 and not (mode & stat.S_ISVTX and path.is_dir()):
        raise ConfigurationError(
            f"{path}: mode {mode:04o} lets everybody change the trusted keys, expected {mode & ~0o002:04o} or less; "
            f"run: chmod o-w {path}"
        )


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        create_file(path, data, mode)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}; name another folder") from error


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: exists, and keys are never overwritten: replicas that trust it would obey no command; "
        "name another folder, or move this one away"
    )
