"""Commands and decisions that a monitor reads back from topics to which everybody with that right can append.

As replicas do, it accepts a record only with the signature of a trusted controller over its bytes. Otherwise one record
of a stranger could end the commands of a model, halt its ledger partition, or move the clock of all models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from actions.checkpoints import CHECKPOINT_KEY
from actions.journal import DecisionHead, read_decision
from unship.commands import Command, decode_command
from unship.events import Epoch
from unship.signing import COMMAND_TYPE, DECISION_TYPE, Headers, Trust, TrustedKey, verify


class SignedRecord(Protocol):
    """A record of any kind of log."""

    @property
    def key(self) -> bytes | None:
        """Return the key, which is the model's name where a monitor appended the record."""

    @property
    def value(self) -> bytes | None:
        """Return the bytes that were signed."""

    @property
    def headers(self) -> Headers:
        """Return the headers."""


R = TypeVar("R", bound=SignedRecord)
T = TypeVar("T", Command, DecisionHead)


class ReadBack(NamedTuple, Generic[R, T]):
    """The newest authentic record of each model with what it holds, and the records after it that are not authentic."""

    newest: dict[str, tuple[R, T]]
    forged: Sequence[R]


def trusted_commands(records: Iterable[R], trust: Trust | None) -> ReadBack[R, Command]:
    """Return the authentic records of `control` among these, which are in the order in which they were appended.

    A record is authentic if a key that is trusted as controller signed its bytes, and if it is for this audience and
    under its model's key. Of each key records are verified from the newest to the first that is authentic: assertions
    of one state are many, and older ones mean nothing.

    Args:
        records: Those of the topic, or the newest ones of each key.
        trust: The trusted keys; without any nothing can be verified, so nothing is returned.
    """

    if trust is None:
        return ReadBack({}, [])
    audience = trust.audience

    def read(value: bytes) -> Command | None:
        command = decode_command(value)
        return command if isinstance(command, Command) else None

    def meant(command: Command) -> bool:
        return command.audience == audience

    return _read_back(records, trust, COMMAND_TYPE, read, meant)


def trusted_decisions(records: Iterable[R], trust: Trust | None) -> ReadBack[R, DecisionHead]:
    """Return the authentic records of `decisions` among these, by the same rules; a decision names no audience.

    Without keys nothing is signed and nothing commanded, and every record of the journal is accepted.
    """
    if trust is None:
        read = [(record, read_decision(record.value)) for record in records]
        return ReadBack({found.model: (record, found) for record, found in read if found is not None}, [])
    return _read_back(records, trust, DECISION_TYPE, read_decision, lambda decision: True)


def is_authentic(value: bytes | None, headers: Headers, trust: Trust | None) -> bool:
    """Return whether a record of the journal is a trusted controller's; without keys nothing is signed."""
    if trust is None:
        return True

    def epoch_of(value: bytes) -> Epoch | None:
        found = read_decision(value)
        return None if found is None else found.epoch

    found = verify(value or b"", headers, trust, "controller", DECISION_TYPE, epoch_of=epoch_of)
    return isinstance(found, TrustedKey)


def _read_back(
    records: Iterable[R],
    trust: Trust,
    payload_type: str,
    read: Callable[[bytes], T | None],
    meant: Callable[[T], bool],
) -> ReadBack[R, T]:
    def epoch_of(value: bytes) -> Epoch | None:
        found = read(value)
        return None if found is None else found.epoch

    newest: dict[str, tuple[R, T]] = {}
    forged: list[R] = []
    known: set[bytes | None] = set()
    for record in reversed(list(records)):
        value = record.value
        if value is None or record.key in known or record.key == CHECKPOINT_KEY:
            continue
        signer = verify(value, record.headers, trust, "controller", payload_type, epoch_of=epoch_of)
        found = read(value) if isinstance(signer, TrustedKey) else None
        if not isinstance(signer, TrustedKey) or (
            found is not None and not (meant(found) and found.model.encode() == record.key)
        ):
            forged.append(record)
        elif found is not None:
            # An authentic record that cannot be read is one of a newer contract; what is known of before it holds.
            known.add(record.key)
            newest[found.model] = record, found
    return ReadBack(newest, forged[::-1])
