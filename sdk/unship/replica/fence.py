"""Decide what a replica obeys: a pure function from what it knows and one control record to a verdict.

The log may drop, repeat and reorder records as a reader sees them, a monitor that was thought dead may come back and
write an old command last, and an attacker who can write the topic can write anything. A lease or a lock at the writer
cannot help against that: the one place where an old or foreign command can be stopped for certain is the replica. So it
keeps the highest epoch that it ever accepted, on disk before it switches, and answers each record by four rules:

* a higher epoch is accepted, if no check fails;
* the same epoch with the same content is a refresh: the heartbeat, and harmless however often it comes;
* the same epoch with other content is EQUIVOCATION: two writers, or a forger with the key;
* a lower epoch is REGRESSION.

What is served changes by an accepted command whose load succeeded, and by nothing else. No silence, no expiry, no
refusal and no damaged file takes a version out of service (fail static). Invariants, each with its property test: the
highest epoch never falls while its key is trusted; one epoch never means two things; the same records, in whatever
order, end in the desired state of the highest epoch; a served epoch implies the version of that epoch's command.

The highest epoch is forgotten in one case: the key that signed it is no longer trusted. A stolen key can sign an epoch
that no honest writer ever reaches; taking the key out of `trust.json` must end its power, and not only its
signatures[^1]. A refresh by another trusted key takes the epoch over, so an orderly change of keys forgets nothing.

The driver's order, for a crash at any point to be harmless: `judge`; if `must_store`, write `encode_state` to disk
(fsync); send `acks`; load what `pending` names and send `staged`; swap it in, take `switched`, write again; send
`serving`. If the load fails, send `load_failed`: the old version serves on, the epoch stays, and `pending` still names
the target.

[^1]: The Update Framework, specification 1.0, section 5.3, step 11 (fast-forward attack).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct

from unship.commands import (
    COMMAND_BYTES_MAX,
    Command,
    Malformed,
    Quarantine,
    content_digest,
    decode_command,
    epoch_in,
    is_quarantined,
)
from unship.events import Ack, Artifact, Epoch, Label, Name, RefusalCode, Shares, Stage
from unship.signing import COMMAND_TYPE, Headers, Trust, TrustedKey, verify

Kind: TypeAlias = Literal["ACCEPT", "REFRESH", "REFUSED"]

StateLoss: TypeAlias = Literal["STATE_MISSING", "STATE_CORRUPT", "STATE_UNSUPPORTED", "STATE_FOREIGN"]
"""Why nothing could be read back: no file, damaged bytes, the format of another build, another model or audience."""

NO_EPOCH: Epoch = (0, 0, 0)
"""The epoch of acks before any command was accepted."""

STATE_BYTES_MAX = 1_048_576
"""Largest stored form: 500 quarantined versions with the longest names take about 250 KB."""

_STORED_HEAD = b"unship-fence 1 "


class Target(Struct, frozen=True, gc=False):
    """Name what should serve, and by which epoch."""

    version: Name
    artifact: Artifact | None
    epoch: Epoch


class Serving(Struct, frozen=True, gc=False):
    """Name what serves; `epoch` is None before the first command. A prediction reports exactly this triple."""

    version: Name
    epoch: Epoch | None = None
    artifact: Artifact | None = None


class FenceState(Struct, frozen=True, kw_only=True):
    """Hold what one replica knows of one model. Times are milliseconds since 1970 by the clocks named.

    Attributes:
        epoch: The highest epoch accepted; None before the first.
        digest: The content of that epoch (`unship.commands.content_digest`).
        key: Id of the key that signed its newest record.
        wanted: What should serve by it; `serving` is what does.
        issued_ts: Newest time of issue seen under that epoch, by the monitor's clock.
        floor_ts: A time that has certainly passed, by both clocks: a clock set back revives nothing expired.
        heard_ts: When the newest record arrived, by the replica's clock; None before the first.
        shares: What part of the units another version answers by that epoch; a file of before shares has none.
        period_epoch: The epoch by which units are dealt out; None before the first command.
    """

    model: Name
    audience: Name
    epoch: Epoch | None = None
    digest: str = ""
    key: str = ""
    wanted: Target | None = None
    serving: Serving | None = None
    quarantine: Quarantine = ()
    issued_ts: int = -1
    floor_ts: int = 0
    heard_ts: int | None = None
    shares: Shares = {}
    period_epoch: Epoch | None = None


class Verdict(Struct, frozen=True):
    """Judge a record for this replica.

    `epoch` is the one to acknowledge: the command's if the command is authentic and meant for this replica, else the
    replica's own, because nothing is repeated that a stranger wrote. `code` and `detail` are set on refusals.
    """

    kind: Kind
    epoch: Epoch
    code: RefusalCode | None = None
    command: Command | None = None
    detail: str = ""


class Identity(Struct, frozen=True):
    """Name a replica in its acks; `boot` is new for each process, so that a restart can be seen."""

    replica: Name
    boot: Label


def judge(
    state: FenceState,
    value: bytes | None,
    headers: Headers,
    trust: Trust,
    now_ms: int,
    registered: Collection[str] | None = None,
) -> tuple[FenceState, Verdict]:
    """Judge one control record; never raises, and returns the very same `state` where it is refused.

    Args:
        state: What the replica knows.
        value: The record's bytes as they came; None for a tombstone, which means nothing here.
        headers: The record's headers.
        trust: The keys trusted, from the replica's own file.
        now_ms: The replica's clock, used for expiry and freshness only.
        registered: Artifacts that may serve at all, if the replica keeps such a list; a command without an artifact
            is then refused too.
    """
    if value is None or len(value) > COMMAND_BYTES_MAX:
        what = "a tombstone" if value is None else f"{len(value)} bytes > limit {COMMAND_BYTES_MAX} bytes"
        return _refused(state, None, "UNSUPPORTED_SCHEMA", what)
    # Nothing is parsed before it is known who wrote it.
    signer = verify(value, headers, trust, "controller", COMMAND_TYPE, epoch_of=epoch_in)
    if not isinstance(signer, TrustedKey):
        known = [key.id for key in trust.having("controller")]
        return _refused(state, None, signer, f"{len(value)} bytes; controller keys trusted here: {known}")
    command = decode_command(value)
    if isinstance(command, Malformed):
        return _refused(state, None, "UNSUPPORTED_SCHEMA", command.detail)
    if (command.model, command.audience) != (state.model, state.audience):
        return _refused(state, None, "WRONG_AUDIENCE", "for another model or another audience")
    digest = content_digest(command)
    if command.epoch == state.epoch and digest == state.digest:
        return _refreshed(state, command, signer.id, now_ms), Verdict("REFRESH", command.epoch, command=command)
    if state.epoch is not None and trust.binds(state.key, state.epoch):
        if command.epoch < state.epoch:
            return _refused(state, command, "REGRESSION", f"epoch {command.epoch} < accepted {state.epoch}")
        if command.epoch == state.epoch:
            return _refused(state, command, "EQUIVOCATION", f"epoch {command.epoch} was accepted with other content")
    code, detail = _against(state, command, now_ms, registered)
    if code is not None:
        return _refused(state, command, code, detail)
    return _accepted(state, command, digest, signer.id, now_ms), Verdict("ACCEPT", command.epoch, command=command)


def boot(state: FenceState, version: str, artifact: str | None = None) -> FenceState:
    """Return the state of a process that starts with this version; `pending` then shows whether it may stay."""
    return msgspec.structs.replace(state, serving=_by_command(Serving(version, None, artifact), state.wanted))


def pending(state: FenceState) -> Target | None:
    """Return what is to be loaded now, None if what serves is what should.

    It stays the same until a load succeeds: after an accepted command, after a restart in the middle of a switch, and
    after a load that failed, which the driver tries again at a refresh.
    """
    if state.wanted is None or (state.serving is not None and state.serving.epoch == state.wanted.epoch):
        return None
    return state.wanted


def holdback(state: FenceState) -> str | None:
    """Return the version that should answer a share of the units while another one serves."""
    serve = None if state.wanted is None else state.wanted.version
    return next((version for version in state.shares if version != serve), None)


def switched(state: FenceState, target: Target) -> FenceState:
    """Return the state after `target` was loaded and swapped in; unchanged if it is no longer wanted."""
    if state.wanted != target:
        return state
    return msgspec.structs.replace(state, serving=Serving(target.version, target.epoch, target.artifact))


def acks(state: FenceState, verdict: Verdict, who: Identity, ts_ms: int) -> list[Ack]:
    """Return what to acknowledge right after `judge`, in order; `state` is the one it returned.

    An accepted command is received and verified, and serving at once if it asks for what serves already. A refresh of
    what serves repeats the ack, which makes up for a lost ack and shows that the replica lives.
    """
    if verdict.kind == "REFUSED":
        return [_ack(state, who, "refused", verdict.epoch, ts_ms, verdict.code)]
    early: list[Stage] = ["received", "verified"] if verdict.kind == "ACCEPT" else []
    stages = early if pending(state) is not None else [*early, "serving"]
    return [_ack(state, who, stage, verdict.epoch, ts_ms) for stage in stages]


def staged(state: FenceState, target: Target, who: Identity, ts_ms: int) -> Ack:
    """Acknowledge that `target` is loaded and not served yet."""
    return _ack(state, who, "staged", target.epoch, ts_ms)


def serving(state: FenceState, who: Identity, ts_ms: int) -> Ack:
    """Acknowledge what serves, after `switched`."""
    epoch = state.serving.epoch if state.serving is not None else None
    return _ack(state, who, "serving", epoch or NO_EPOCH, ts_ms)


def left(state: FenceState, who: Identity, ts_ms: int) -> Ack:
    """Acknowledge that the replica ends, and what served until then: its silence is no fault."""
    return msgspec.structs.replace(serving(state, who, ts_ms), stage="left")


def state_lost(state: FenceState, loss: StateLoss, who: Identity, ts_ms: int) -> Ack:
    """Acknowledge what serves, and that the epoch obeyed before this boot is not known any more."""
    return msgspec.structs.replace(serving(state, who, ts_ms), code=loss)


def load_failed(state: FenceState, target: Target, who: Identity, ts_ms: int) -> Ack:
    """Acknowledge that `target` could not be loaded: the old version serves on and the highest epoch stays."""
    return _ack(state, who, "refused", target.epoch, ts_ms, "LOAD_FAILED")


def is_stale(state: FenceState, now_ms: int, beat_ms: int, beats: int = 2) -> bool:
    """Return whether heartbeats stopped: no newer record for `beats` beats of `beat_ms` milliseconds.

    "No news" and "cut off" look alike without a heartbeat. A stale replica reports itself and serves on.
    A clock that was set back by more than that is no proof of freshness either. Before the first command nothing can
    be stale: where the monitor only observes, it never publishes, and the replica's acks show that it has no epoch.
    """
    return state.heard_ts is not None and abs(now_ms - state.heard_ts) > beats * beat_ms


def encode_state(state: FenceState) -> bytes:
    """Encode a state for the disk: one line with format and SHA-256, one with JSON. Equal states give equal bytes."""
    body = msgspec.json.encode(state)
    return b"%b%b\n%b\n" % (_STORED_HEAD, hashlib.sha256(body).hexdigest().encode(), body)


def must_store(before: FenceState, after: FenceState) -> bool:
    """Return whether a change has to be on disk before anything follows from it; a mere heartbeat need not be."""
    return any(
        getattr(before, name) != getattr(after, name) for name in ("epoch", "digest", "key", "wanted", "serving")
    )


def restore(data: bytes | None, model: str, audience: str) -> tuple[FenceState, StateLoss | None]:
    """Return the stored state, or a first state and why it is one; never raises.

    A lost state is not a crash: the replica starts as a new one would, and obeys only what has not expired. Its driver
    judges everything that the topic holds before it obeys anything, and reports the loss.

    Example:
        >>> state, loss = restore(None, "fraud", "prod")
        >>> state.epoch, loss
        (None, 'STATE_MISSING')
    """
    first = FenceState(model=model, audience=audience)
    if data is None:
        return first, "STATE_MISSING"
    head, _, rest = data.partition(b"\n")
    if len(data) > STATE_BYTES_MAX or not data.startswith(b"unship-fence ") or not rest.endswith(b"\n"):
        return first, "STATE_CORRUPT"
    if not head.startswith(_STORED_HEAD):
        return first, "STATE_UNSUPPORTED"
    body = rest[:-1]
    if head[len(_STORED_HEAD) :] != hashlib.sha256(body).hexdigest().encode():
        return first, "STATE_CORRUPT"
    try:
        stored = msgspec.json.decode(body, type=FenceState)
    except (ValueError, RecursionError, OverflowError):
        return first, "STATE_CORRUPT"
    if (stored.model, stored.audience) != (model, audience):
        return first, "STATE_FOREIGN"
    return stored, None


def _against(
    state: FenceState, command: Command, now_ms: int, registered: Collection[str] | None
) -> tuple[RefusalCode | None, str]:
    """Return the first reason to refuse a command that was never seen before."""
    now_ms = max(now_ms, state.floor_ts)
    if now_ms > command.not_after_ts:
        return "EXPIRED", f"{now_ms} ms > not after {command.not_after_ts} ms"
    if registered is not None and command.artifact not in registered:
        return "UNREGISTERED_ARTIFACT", f"not among {len(registered)} registered artifacts"
    if is_quarantined(command.quarantine, command.serve, command.artifact):
        return "QUARANTINED", f"the command serves what it quarantines, {len(command.quarantine)} entries"
    return None, ""


def _accepted(state: FenceState, command: Command, digest: str, key: str, now_ms: int) -> FenceState:
    wanted = Target(command.serve, command.artifact, command.epoch)
    return msgspec.structs.replace(
        state,
        epoch=command.epoch,
        digest=digest,
        key=key,
        wanted=wanted,
        serving=_by_command(state.serving, wanted),
        quarantine=command.quarantine,
        issued_ts=command.issued_ts,
        floor_ts=_floor(state, command, now_ms),
        heard_ts=now_ms,
        shares=command.shares or {},
        # By the command alone, so that all replicas deal units out alike, whatever they obeyed before.
        period_epoch=command.epoch if command.period_epoch is UNSET else command.period_epoch,
    )


def _refreshed(state: FenceState, command: Command, key: str, now_ms: int) -> FenceState:
    """Renew freshness by a record issued later than all before; a repeated or withheld one proves nothing."""
    if command.issued_ts <= state.issued_ts:
        return state
    return msgspec.structs.replace(
        state,
        key=key,
        issued_ts=command.issued_ts,
        floor_ts=_floor(state, command, now_ms),
        heard_ts=now_ms if now_ms <= command.not_after_ts else state.heard_ts,
    )


def _floor(state: FenceState, command: Command, now_ms: int) -> int:
    # The earlier of the two clocks: a single one that ran ahead for a while must not make every later command expire.
    return max(state.floor_ts, min(command.issued_ts, now_ms))


def _by_command(loaded: Serving | None, wanted: Target | None) -> Serving | None:
    """Return what serves under the wanted epoch if it is what that epoch wants, so that nothing is loaded twice.

    Unknown on either side, an artifact does not distinguish two versions of one name.
    """
    if loaded is None or wanted is None or loaded.version != wanted.version:
        return loaded
    if loaded.artifact is not None and wanted.artifact is not None and loaded.artifact != wanted.artifact:
        return loaded
    return Serving(loaded.version, wanted.epoch, loaded.artifact)


def _refused(state: FenceState, command: Command | None, code: RefusalCode, detail: str) -> tuple[FenceState, Verdict]:
    epoch = command.epoch if command is not None else state.epoch or NO_EPOCH
    return state, Verdict("REFUSED", epoch, code, command, detail)


def _ack(
    state: FenceState, who: Identity, stage: Stage, epoch: Epoch, ts_ms: int, code: RefusalCode | None = None
) -> Ack:
    version = state.serving.version if state.serving is not None else None
    return Ack(
        model=state.model,
        replica=who.replica,
        boot=who.boot,
        epoch=epoch,
        stage=stage,
        serving=version,
        code=code,
        ts=ts_ms,
    )
