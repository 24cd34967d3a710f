"""Define the command: the whole desired state of one model, as replicas read it from the `control` topic.

A command states what should hold, not what should change, so that a replica that missed ten of them needs only the
newest. Its exact bytes are signed, therefore reading is stricter here than for events: a signature proves nothing if
two readers can decode two commands from the same bytes. A key that occurs twice in one object is such a case (one JSON
reader takes the first value, another the last), and is refused at every depth.

Reading is total, as everywhere: bytes give a `Command` or a `Malformed`, and nothing raises. Unknown fields are
ignored, so that an older replica understands a newer monitor; what an older replica must not misread carries another
`schema`, and is refused as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from unship.budgets.table import COMMAND
from unship.events import Artifact, Epoch, Label, Name, Shares, TimeMs
from unship.text import is_deeper_than, quotes_nothing

COMMAND_BYTES_MAX = COMMAND.limit
"""Largest value of a control record: 500 quarantined versions with artifacts take about 60 KB."""

COMMAND_DEPTH_MAX = 8
"""Deepest nesting: the command, its list and the entries make 3; the rest is room for fields not known yet."""


class Quarantined(Struct, frozen=True, gc=False):
    """Name a version that must not serve; with an artifact, the same bytes under another name must not either."""

    version: Name
    artifact: Artifact | None = None


Quarantine: TypeAlias = Annotated[tuple[Quarantined, ...], Meta(max_length=500)]


class Command(Struct, frozen=True, gc=False, kw_only=True, tag_field="type", tag="command"):
    """State what should serve one model, and what must not.

    `epoch` is [incarnation, ledger offset, index], compared as a tuple: the higher one wins. `decision` names the
    decision behind it, None where the desired state follows a deployment. Times are milliseconds since 1970 (UTC):
    re-asserting the same state renews `issued_ts` and `not_after_ts` under the same epoch.

    With `shares` another version answers a part of the units (`unship.shares`); `period_epoch` is the epoch that
    ordered `serve`, and stays while shares change, so that a unit stays with its version. Both are absent otherwise.

    Example:
        >>> command = Command(model="fraud", epoch=(1, 7, 0), serve="v41", quarantine=(Quarantined("v42"),),
        ...     action="rollback", decision="d-7", issued_ts=0, not_after_ts=60_000, audience="prod")
        >>> decode_command(encode_command(command)) == command
        True
    """

    schema: Literal[1] = 1
    model: Name
    epoch: Epoch
    serve: Name
    artifact: Artifact | None = None
    quarantine: Quarantine
    action: Name
    decision: Label | None = None
    issued_ts: TimeMs
    not_after_ts: TimeMs
    audience: Name
    shares: Shares | UnsetType = UNSET
    period_epoch: Epoch | UnsetType = UNSET


class Malformed(Struct, frozen=True, gc=False):
    """Report why bytes are not a command; `detail` holds sizes, types and field names, never text of the sender."""

    detail: str


class _Doubled(ValueError):
    """Report a key that occurs twice in one object."""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Command)
_NOT_JSON = Malformed("not one JSON value in UTF-8")


def encode_command(command: Command) -> bytes:
    """Encode a command as JSON, all fields but an absent share: the exact bytes that are signed and sent."""
    return _encode(command)


def decode_command(value: bytes | None) -> Command | Malformed:
    """Decode the value of a control record strictly; never raises.

    Call it only after the signature over these bytes was verified.

    Example:
        >>> decode_command(None)
        Malformed(detail='the record has no value')
        >>> decode_command(b'{"model":"fraud","model":"other"}')
        Malformed(detail='a key occurs twice in one object')
    """
    if value is None:
        return Malformed("the record has no value")
    if len(value) > COMMAND_BYTES_MAX:
        return Malformed(f"{len(value)} bytes > limit {COMMAND_BYTES_MAX} bytes")
    if is_deeper_than(COMMAND_DEPTH_MAX, value):
        return Malformed(f"nested deeper than limit {COMMAND_DEPTH_MAX}")
    try:
        # Numbers stay text in this pass: only the shape is looked at, and no digits are too many for it.
        json.loads(value.decode(), object_pairs_hook=_no_key_twice, parse_int=str, parse_float=str, parse_constant=str)
    except _Doubled as error:
        return Malformed(str(error))
    except ValueError:
        return _NOT_JSON
    try:
        command = _decoder.decode(value)
        if command.shares and command.period_epoch is UNSET:
            return Malformed("shares without period_epoch")
        return command
    except msgspec.ValidationError as error:
        message = str(error)
        return Malformed(message if quotes_nothing(message) else "a field holds an unknown value")
    except (ValueError, RecursionError, OverflowError):
        return _NOT_JSON


def epoch_in(value: bytes) -> Epoch | None:
    """Return the epoch of the command in a value, None if it holds none."""
    command = decode_command(value)
    return command.epoch if isinstance(command, Command) else None


def content_digest(command: Command) -> str:
    """Return the SHA-256 over the content of a command: two commands of one epoch must agree in it.

    Times are left out, so that a renewal is the same command; so is the order of the quarantine, which is a set.
    """
    quarantine = sorted({(entry.version, entry.artifact or "") for entry in command.quarantine})
    shares = (command.shares, command.period_epoch) if command.shares else ()
    content = (command.serve, command.artifact, quarantine, command.action, command.decision, command.audience, *shares)
    return hashlib.sha256(_encode(content)).hexdigest()


def is_quarantined(quarantine: Iterable[Quarantined], version: str, artifact: str | None) -> bool:
    """Return whether a version must not serve: by its artifact, or by its name where either side has no artifact.

    Example:
        >>> bad = [Quarantined("v42", "sha256:aa")]
        >>> is_quarantined(bad, "v42-again", "sha256:aa"), is_quarantined(bad, "v42", None)
        (True, True)
        >>> is_quarantined(bad, "v42", "sha256:bb")
        False
    """
    for entry in quarantine:
        if entry.artifact is None or artifact is None:
            if entry.version == version:
                return True
        elif entry.artifact == artifact:
            return True
    return False


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Doubled("a key occurs twice in one object")
    return fields
