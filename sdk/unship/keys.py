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
from unship.signing import Revoked, Role, Trust, TrustedKey, public_bytes
from unship.system.files import create_file, replace_file
from unship.system.modes import changed_by_others

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CONTROLLER_FILE = "controller.key"
OPERATOR_FILE = "operator.key"
DEPLOYER_FILE = "deployer.key"
TRUST_FILE = "trust.json"

FILE_BYTES_MAX = 65_536
"""Largest key or trust file: 64 trusted keys take about 8 KB."""

_FILE_OF: dict[Role, str] = {"controller": CONTROLLER_FILE, "operator": OPERATOR_FILE, "deployer": DEPLOYER_FILE}


class _KeyEntry(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Hold one key of `trust.json`: 32 bytes in base64, what it may sign, and from when on it is revoked."""

    public: str
    roles: Annotated[list[Role], Meta(min_length=1, max_length=3)]
    revoked: Revoked | None = None


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


def add_key(folder: Path, role: Role) -> TrustedKey:
    """Make one more key for a role, in place of one that was revoked, and trust it; return it.

    Raises:
        ConfigurationError: The folder has a key of that role already, or cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    trust, path = load_trust(folder / TRUST_FILE), folder / _FILE_OF[role]
    if os.path.lexists(path):
        raise _exists(path)
    names = {key.name for key in trust.keys}
    name = next(each for each in (role, *(f"{role}-{number}" for number in range(2, 66))) if each not in names)
    private_key = Ed25519PrivateKey.generate()
    key = TrustedKey(name, public_bytes(private_key), (role,))
    _write_new(path, _as_pem(private_key), 0o600)
    _replace_trust(folder, Trust((*trust.keys, key), trust.audience))
    return key


def revoke_key(folder: Path, name: str, revoked: Revoked) -> TrustedKey:
    """Revoke a key in the `trust.json` of a folder, by its name or its id; return it.

    Its private half is moved aside if it is in the folder, so that nothing signs with it by mistake.

    Raises:
        ConfigurationError: There is no such key, or the folder cannot be written.
    """
    trust = load_trust(folder / TRUST_FILE)
    known = next((key for key in trust.keys if name in (key.name, key.id)), None)
    if known is None:
        listed = ", ".join(f"{key.name} ({key.id})" for key in trust.keys)
        raise ConfigurationError(f"{folder / TRUST_FILE}: no key is called {name!r}; the keys are {listed}")
    key = msgspec.structs.replace(known, revoked=revoked)
    _replace_trust(folder, Trust(tuple(key if each is known else each for each in trust.keys), trust.audience))
    for role in key.roles:
        path = folder / _FILE_OF[role]
        if path.exists() and public_bytes(load_private_key(path)) == key.public:
            _move(path, path.with_name(f"{path.name}.revoked-{key.id}"))
    return key


class TrustFile:
    """Keep what a `trust.json` holds, and read it again when it was replaced; `problem` is why that failed last.

    A file that is gone or damaged changes nothing: the keys that were read last stay trusted.
    """

    def __init__(self, path: Path | None, trust: Trust | None = None) -> None:
        """Read the file; or, without a path, keep the content that is given.

        Raises:
            ConfigurationError: As `load_trust`.
        """
        self._path = path
        self._seen = None if path is None else file_stamp(path)
        assert path is not None or trust is not None, "neither a file nor its content"
        self.trust = load_trust(path) if path is not None else trust or Trust(())
        self.problem = ""

    def reload(self) -> bool:
        """Read the file again if it is another one; return whether other keys are trusted now."""
        if self._path is None or (seen := file_stamp(self._path)) == self._seen:
            return False
        try:
            trust = load_trust(self._path)
        except ConfigurationError as error:
            self.problem = str(error)
            return False
        before, self.trust, self._seen, self.problem = self.trust, trust, seen, ""
        return trust != before


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what differs between a file and the one that takes its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


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
        ConfigurationError: No such file, one that others may read, change or replace, or one that holds no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(path, "make it with: unship keys new")
    # The group may read, because mounted secrets often belong to one; others may do nothing.
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o027:
        raise ConfigurationError(f"{path}: mode {mode:04o} opens a private key to others; run: chmod 600 {path}")
    _refuse_writable(path)
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
        ConfigurationError: No such file, one that others may change or replace, or its content is not what `new_keys`
            writes.
    """
    data = _read(path, "copy it from the folder that `unship keys new` made")
    _refuse_writable(path)
    try:
        content = msgspec.json.decode(data, type=_TrustFile)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: {error}; take the trust.json that `unship keys new` wrote") from None
    keys = tuple(
        TrustedKey(name, _public(path, name, entry.public), tuple(entry.roles), entry.revoked)
        for name, entry in content.keys.items()
    )
    return Trust(keys, content.audience)


def encode_trust(trust: Trust) -> bytes:
    """Encode what `load_trust` reads, for a person to look at too."""
    entries = {
        key.name: _KeyEntry(base64.b64encode(key.public).decode("ascii"), list(key.roles), key.revoked)
        for key in trust.keys
    }
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
    """Refuse a file that others may change or replace: who writes `trust.json` commands the fleet."""
    try:
        found = changed_by_others(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be looked at: {error.strerror}; check its owner and mode") from error
    if found is not None:
        raise ConfigurationError(f"keys that others may change are not used: {found}")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        create_file(path, data, mode)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}; name another folder") from error


def _replace_trust(folder: Path, trust: Trust) -> None:
    path = folder / TRUST_FILE
    try:
        replace_file(path, encode_trust(trust), 0o644)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}; check its owner and mode") from error


def _move(path: Path, to: Path) -> None:
    try:
        path.rename(to)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be renamed: {error.strerror}; move it away") from error


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: exists, and keys are never overwritten: replicas that trust it would obey no command; "
        "name another folder, or move this one away"
    )
