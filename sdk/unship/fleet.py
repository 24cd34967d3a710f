"""Put a serving process under the monitor: what it answers goes out as events, the version to serve comes back.

The promise to the service is that nothing here can hurt it. `predicted` takes about two microseconds, never waits and
never raises; a log that is gone, a monitor that is dead, a command that is forged or a load that fails leave the
version that serves in service. What was lost meanwhile is counted in `Fleet.stats`.

Read `fleet.current` once per request, answer with that version, and hand it to `predicted` as `as_`: an answer that was
computed while a switch went on is then labelled with the version that gave it. `fleet.choose` takes its place where a
second version may answer a share of the requests.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from unship.emitter import BAD_ARGUMENT, Emitter, SignLater
from unship.errors import ConfigurationError
from unship.events import Deployment, Epoch, Prediction, Reference, Role, SliceValue, Status
from unship.keys import TrustFile, load_private_key, new_nonce
from unship.log.address import checked_log, state_folder
from unship.log.link import wall_ms
from unship.replica.choice import Choice, Chooser, Loaded
from unship.replica.epoch_file import SUFFIX, EpochFile, epoch_path
from unship.replica.fence import Identity, Serving, Target, boot, restore
from unship.replica.follower import ControlHealth, Follower
from unship.replica.forked import NOT_FOLLOWING, ForkedChild
from unship.replica.holdback import HoldbackState
from unship.replica.loading import LOAD_S
from unship.replica.replica import Confirmed, Replica
from unship.sending.sendable import PLAIN, plain
from unship.signing import VALID_MS_MAX, Trust, sign_event
from unship.system.forking import after_fork_in_child
from unship.system.ids import Ids

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DEFAULT_TRUST: Final = "trust.json"
LOGGER: Final = logging.getLogger("unship")
LOAD_MAX_S: Final = 86_400.0
NO_SLICES: Final[dict[str, SliceValue]] = {}


class FleetStats(Struct, frozen=True):
    """Count what a replica did.

    Attributes:
        waiting: Events in the queue.
        sent: Events written to the log.
        dropped: Events that were not, by reason: QUEUE_FULL, CLOSED, NOT_SENT, BAD_ARGUMENT, a code of a rejection, or
            what a broker refuses: NOT_AUTHORIZED, TOO_LARGE, BAD_TIME.
        refused: Control records refused and loads failed, by code; a kept epoch that was lost, by a code `STATE_...`.
        detail: What is wrong: loads that take long, and the newest problem; empty if there was none.
        loading: Versions that are being loaded now, each with its seconds so far.
        shares: The version that is to answer a share of the requests, with `ANSWERING` or the reason why it does not
            (`unship.replica.holdback.HoldbackState`); empty where none is to.
    """

    waiting: int
    sent: int
    dropped: dict[str, int]
    refused: dict[str, int]
    detail: str
    loading: dict[str, float] = {}
    shares: dict[str, HoldbackState] = {}


class _Options(Struct, frozen=True, eq=False):
    """Hold the arguments of a fleet that its identities have in common."""

    log: str
    trust: TrustFile | None
    on_version: Callable[[str], object] | None
    load_timeout_s: float
    artifacts: Mapping[str, str] | None
    replica: str | None
    state: Path | None
    queue: int
    queue_bytes: int | None
    pack: bool
    beat_ms: int


class Fleet:
    """Emit what one replica of a model answers, and obey the commands for it.

    One object per model and process; every method may be called from any thread. After a fork the child's object is a
    replica of its own, under a name of its own, and starts by itself with its first use (`current`, `predicted`). Until
    its threads run it serves what its parent obeyed: to look at the newest command before the first request, call
    `start` in the child.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, Fleet("fraud", "v42", log=f"embedded:{folder}", trust=None) as fleet:
        ...     now = fleet.current
        ...     prediction_id = fleet.predicted(1, id="p-1", score=0.93, slices={"country": "DE"}, as_=now)
        ...     fleet.flush(), fleet.stats.sent, now.version
        (True, 1, 'v42')
    """

    def __init__(
        self,
        model: str,
        version: str,
        *,
        on_version: Callable[[str], object] | None = None,
        load_timeout: float = LOAD_S,
        log: str | None = None,
        trust: str | os.PathLike[str] | Trust | None = DEFAULT_TRUST,
        replica: str | None = None,
        artifact: str | None = None,
        artifacts: Mapping[str, str] | None = None,
        state: str | os.PathLike[str] | None = None,
        queue: int = 10_000,
        queue_bytes: int | None = None,
        pack: bool = False,
        beat_s: float = 30.0,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """Describe the replica; nothing runs before `start` or `with`.

        Args:
            model: The name of the model, as in the events.
            version: What this process has loaded as it starts.
            on_version: Called with each newer accepted version, on a thread for loads: loads it, so that requests
                that read `current` afterwards can use it. Raising keeps the old version. None: nothing needs loading.
                Returning `unship.LATER` keeps the old version in `current` until `confirm` is called.
            load_timeout: Longest time for `on_version`, in seconds. One that takes longer counts as failed
                (`LOAD_FAILED`), is named in `stats` until it returns, and what it returns then switches nothing: the
                next command is followed meanwhile, its load on another thread. With four loads that hang no further
                one is started (`LOADS_HANG`).
            log: `kafka://HOST:PORT[,HOST:PORT]` or `embedded:DIR`; without it, the environment's UNSHIP_LOG. The
                credentials for a broker are the environment's UNSHIP_SECURITY_* variables.
            trust: The file of trusted keys, or its content; left at the default, the environment's UNSHIP_TRUST comes
                first. A file is read again when it is replaced. None: emit only, obey no command.
            replica: A name that survives a restart of this replica, such as the pod's ordinal. The default (host,
                process, chance) does not, and with it the highest epoch obeyed is forgotten at each restart. In the
                child of a fork, process and chance are added to it, unless the parent had not started and the child
                calls `start` before anything else.
            artifact: The digest of what is loaded, `sha256:...`.
            artifacts: What may serve at all: artifact by version. Commands for anything else are refused.
            state: Where the highest epoch is kept: a folder, or a file that ends in `.state`. The default is the
                folder `replicas` inside the log's, on Kafka the folder `unship-state` inside the current one: in a
                container, name a folder that outlives it.
            queue: Most events that wait.
            queue_bytes: Most memory that they take, roughly, in bytes, whatever they hold: 64 MiB, or more if so many
                common events need more. Beyond either limit an event is dropped as `QUEUE_FULL`.
            pack: Put up to 64 predictions into one record, which costs the broker and the monitor less; an event then
                waits up to 50 ms for others. Not for topics that programs read which expect one event in a record.
            beat_s: How often the monitor is expected to publish, in seconds; after two beats without a record
                `control_health` is STALE.
            now_ms: The clock, in milliseconds since the epoch: stamps events and acks, stamps their append in an
                embedded log, and decides when commands expire. Give one of your own where recorded traffic is played
                faster than it was; all writers to that log then need the same one.

        Raises:
            ConfigurationError: A setting is wrong, or the trust file cannot be read.
        """
        for name, text in (("model", model), ("version", version), ("replica", "-" if replica is None else replica)):
            if not isinstance(text, str) or not 1 <= len(text) <= 128:
                raise ConfigurationError(f"{name}: expected 1 to 128 characters, was {text!r:.140}; rename it")
        if not 0 < load_timeout <= LOAD_MAX_S:
            raise ConfigurationError(
                f"load_timeout: expected more than 0 and at most {LOAD_MAX_S:g} seconds, was {load_timeout!r:.40}; "
                "correct it"
            )
        self.model = model
        self._options = _Options(
            log=checked_log(log or os.environ.get("UNSHIP_LOG")),
            trust=_trust(trust),
            on_version=on_version,
            load_timeout_s=float(load_timeout),
            artifacts=artifacts,
            replica=replica,
            state=None if state is None else Path(state),
            queue=queue,
            queue_bytes=queue_bytes,
            pack=pack,
            beat_ms=round(beat_s * 1_000),
        )
        if artifact is None and artifacts is not None:
            artifact = artifacts.get(version)
        self._chooser = Chooser(model, Loaded(Serving(version, None, artifact)))
        self._now_ms = now_ms
        self._switched = threading.Condition()
        self._child: ForkedChild | None = None
        self._begin()
        after_fork_in_child(self._after_fork)

    def _begin(self) -> None:
        """Take an identity, and nothing of what ran before: called again after a fork, and to start after a close."""
        options = self._options
        self._closed = False
        self._boot = os.urandom(4).hex()  # noqa: TID251
        self._ids = Ids()
        self.replica = options.replica or socket.gethostname()
        if options.replica is None or (self._child is not None and not self._child.named):
            self.replica = f"{self.replica[:96]}-{os.getpid()}-{self._boot}"
        self._emitter = Emitter(
            options.log,
            queue=options.queue,
            queue_bytes=options.queue_bytes,
            pack=options.pack,
            now_ms=self._now_ms,
        )
        self._follower: Follower | None = None

    def start(self, wait_s: float = 10.0) -> Fleet:
        """Start the threads; starting twice is harmless.

        After `close` the fleet starts again with the version that serves, and counts from zero.

        Returns when the version that was obeyed before a restart is loaded and the newest command was looked at, so
        that the first request is not answered by what was taken back: after at most `wait_s` seconds, and at once
        where the log is away; a broker that takes the connection and never answers is waited for.

        Raises:
            ConfigurationError: Another process follows under the same name of a replica.
        """
        if self._closed:
            self._begin()
        if self._child is not None and self._child.begins(named=True):
            self.replica = self._options.replica or self.replica
        self._emitter.start()
        self._follow(wait_s)
        return self

    def _follow(self, wait_s: float) -> None:
        """Follow commands from now on, and wait as `start` does."""
        if self._options.trust is None:
            return
        with self._switched:
            follower = self._follower
            if follower is None and not self._closed:
                follower = self._follower = self._new_follower(self._options.trust)
                follower.start()
        if follower is not None:
            follower.settle(wait_s)

    def _start_in_child(self, child: ForkedChild) -> None:
        """Start with the first use after a fork; the request that came first neither waits nor sees an error."""
        if not child.begins():
            return
        try:
            self._emitter.start()
            threading.Thread(target=self._follow_in_child, args=(child,), name="unship-fork", daemon=True).start()
        except Exception as error:  # noqa: BLE001 (the service's answer comes first)
            self._report(child, error)

    def _follow_in_child(self, child: ForkedChild) -> None:
        try:
            self._follow(0.0)
        except Exception as error:  # noqa: BLE001 (there is nobody to raise it to)
            self._report(child, error)

    def _report(self, child: ForkedChild, error: Exception) -> None:
        child.fail(str(error))
        LOGGER.error("unship: %s, process %d: %s", self.replica, os.getpid(), child.failure)

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop following, and send what waits for at most `timeout_s` seconds; what is left then counts as dropped."""
        if self._child is not None:
            self._child.begins()
        with self._switched:
            self._closed = True
        if self._follower is not None:
            self._follower.close(timeout_s)
        self._emitter.close(timeout_s)

    def __enter__(self) -> Fleet:
        """Start, and return the fleet."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the fleet."""
        self.close()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Start before an ASGI application takes its first request, and close after the last.

        To be handed over where an application asks for its lifespan: `FastAPI(lifespan=fleet.lifespan)`, and the same
        for Starlette. An application with a lifespan of its own enters `fleet.lifespan(app)` in it.

        Args:
            app: The application, as such functions get it; not used.

        Raises:
            ConfigurationError: As `start`.
        """
        # Loaded here, where a server has loaded it. Starting may wait for a load, which may itself need the event loop.
        import asyncio

        await asyncio.to_thread(self.start)
        try:
            yield
        finally:
            await asyncio.to_thread(self.close)

    @property
    def current(self) -> Serving:
        """Return what serves now: one immutable (version, epoch, artifact), swapped as a whole."""
        if self._child is not None and self._child.waits:
            self._start_in_child(self._child)
        return self._chooser.loaded.serving

    def choose(self, unit: str | int | None = None, *, id: str | None = None) -> Choice:
        """Choose the version that answers a request; never waits and never raises.

        All replicas choose alike, before and after a restart: a unit stays with its version for as long as nothing
        else becomes live, and a share that is raised only adds units. Without a share it is the version that serves,
        as in `current`. What has a share is loaded from the first call on: call it once before `start` to have that
        version loaded before the first request.

        One choice is for one request. Without a unit it goes by the id of the prediction: the one given, or one made
        here, which `predicted(as_=...)` then gives to the event. An id given to `predicted` itself comes first there
        and changes the choice no more.

        Args:
            unit: Whom the answer is for, such as a customer, as text or a number; None or "" if that is not known.
            id: The id that the prediction will have, if the service makes its ids itself.
        """
        try:
            child = self._child
            if child is not None and child.waits:
                self._start_in_child(child)
            if id is None and (unit is None or unit == ""):
                id = self._ids.make(self._now_ms())
            return self._chooser.choose(unit, id)
        except Exception as error:  # noqa: BLE001 (the service's answer comes first)
            self._emitter.drop(BAD_ARGUMENT, f"choose: {type(error).__name__}: {error}")
            return self._chooser.serving(None)

    @property
    def loaded(self) -> Loaded:
        """Return what `choose` chooses from now: what serves, and what answers which share of the units."""
        return self._chooser.loaded

    def predicted(
        self,
        output: Any,
        *,
        id: str | None = None,
        score: float | None = None,
        scores: Mapping[str, float] | None = None,
        row: int = 0,
        target: str = "",
        role: Role | None = None,
        slices: Mapping[str, SliceValue] | None = None,
        latency_ms: float | None = None,
        ts: int | None = None,
        as_: Serving | None = None,
    ) -> str:
        """Emit what was answered, and return the id under which its truth will be reported.

        Never waits and never raises: what makes no event is dropped and counted, with the reason in `stats`.

        Args:
            output: Bool, number, text, or a list of them for rankings; arrays and scalars of numpy are converted.
            id: 1..128 characters; without it an id is made that nobody can guess, and later ids of this process sort
                after earlier ones. An id of your own has to be as hard to guess: a label may come before its answer.
            score: The probability of the positive class, 0..1.
            scores: The probability of each class.
            row: Which row of a batched request, if several share the id.
            target: Which of several targets.
            role: `live`, `shadow` or `holdback`; by default that of the choice in `as_`, else `live`.
            slices: What the answer may be grouped by, such as {"country": "DE"}.
            latency_ms: How long the answer took, in milliseconds.
            ts: When it was given, in milliseconds since the epoch; now if absent.
            as_: The `current` that was read when the request began, or what `choose` returned for it; by default the
                `current` of this moment.
        """
        hashed = None
        try:
            now_ms = self._now_ms()
            if as_.__class__ is Choice:
                choice: Any = as_
                id, role, hashed = id or choice.id, role or choice.role, choice.unit_hash
            if id is None:
                id = self._ids.make(now_ms)
            child = self._child
            if child is not None and child.waits:
                self._start_in_child(child)
            serving = self._chooser.loaded.serving if as_ is None else as_
            answer: Any = output if output.__class__ in PLAIN else plain(output)
            self._emitter.put(
                Prediction(
                    id=id,
                    model=self.model,
                    version=serving.version,
                    output=answer,
                    ts=now_ms if ts is None else ts,
                    row=row,
                    target=target,
                    score=score,
                    # Copied, because the caller may go on using what it handed over while the event waits.
                    scores=None if scores is None else dict(scores),
                    role=role or "live",
                    unit_hash=hashed,
                    slices=NO_SLICES if slices is None else dict(slices),
                    latency_ms=latency_ms,
                    replica=self.replica,
                    epoch=serving.epoch,
                    artifact=serving.artifact,
                )
            )
        except Exception as error:  # noqa: BLE001 (the service's answer comes first)
            self._emitter.drop(BAD_ARGUMENT, f"prediction: {type(error).__name__}: {error}")
        return id or ""

    def deployed(
        self,
        status: Status = "live",
        *,
        version: str | None = None,
        previous: str | None = None,
        reference: Mapping[str, tuple[float, int] | Reference] | None = None,
        card: str | dict[str, Any] | None = None,
        key: str | os.PathLike[str] | Ed25519PrivateKey | None = None,
    ) -> None:
        """Announce that a version serves as `status` from now on; never waits and never raises, as `predicted`.

        Where the monitor may act, it follows only what is signed: give `key`, or let the release pipeline announce the
        version with `unship-replica emit deployment`.

        Args:
            status: `live`, `shadow`, `holdback` or `retired`.
            version: Which version; `current` if absent.
            previous: The version that it replaces.
            reference: The offline metrics by loss: {"zero_one": (mean, number of outcomes)}.
            card: The address of the model card, or its content.
            key: The key to sign with, or its file: that of a deployer or an operator, for the audience of `trust`.
        """
        try:
            now = self.current
            sign = None if key is None else self._signer(key)
            event = Deployment(
                model=self.model,
                version=now.version if version is None else version,
                status=status,
                ts=self._now_ms(),
                previous=previous,
                artifact=now.artifact if version in (None, now.version) else None,
                reference=None if reference is None else {name: _reference(it) for name, it in reference.items()},
                card=card,
            )
            self._emitter.put(event if sign is None else SignLater(event, sign))
        except Exception as error:  # noqa: BLE001 (the service comes first)
            self._emitter.drop(BAD_ARGUMENT, f"deployment: {type(error).__name__}: {error}")

    def _signer(
        self, key: str | os.PathLike[str] | Ed25519PrivateKey
    ) -> Callable[[Deployment], tuple[bytes, tuple[tuple[str, bytes], ...]]]:
        trust, now_ms = self._options.trust, self._now_ms
        if trust is None:
            raise ConfigurationError("key: a signature is for one installation, and without trust none is known")
        private_key = load_private_key(Path(key)) if isinstance(key, str | os.PathLike) else key
        return lambda event: sign_event(event, private_key, trust.trust.audience, now_ms(), new_nonce(), VALID_MS_MAX)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until every event so far was written or dropped; False when time is up first."""
        return self._emitter.flush(timeout_s)

    def wait_for(self, version: str, timeout_s: float = 5.0) -> bool:
        """Wait until a version serves; False when time is up first."""
        if self.current.version == version:
            return True
        with self._switched:
            return self._switched.wait_for(lambda: self._chooser.loaded.serving.version == version, timeout_s)

    @property
    def desired(self) -> Target | None:
        """Return what the newest accepted command wants: (version, artifact, epoch); None before the first."""
        return None if self._follower is None else self._follower.wanted

    def confirm(
        self, version: str, epoch: Epoch, *, ok: bool = True, detail: str = "", timeout_s: float = 5.0
    ) -> Confirmed | None:
        """Confirm how a switch ended whose `on_version` returned `unship.LATER`; never raises.

        Returns:
            SWITCHED: it serves, see `current`. FAILED: `LOAD_FAILED` was acknowledged and the old version serves.
            NOT_WANTED: that version under that epoch is not pending. None: `on_version` is still running.
        """
        follower = self._follower
        return "NOT_WANTED" if follower is None else follower.confirm(version, epoch, ok, detail, timeout_s)

    @property
    def control_health(self) -> ControlHealth | None:
        """Return the state of the connection to the monitor: OK, STALE, LOST; None where nothing is followed."""
        if self._options.trust is None:
            return None
        return "LOST" if self._follower is None else self._follower.health

    @property
    def stats(self) -> FleetStats:
        """Return the counts of now."""
        emitted, follower = self._emitter.stats, self._follower
        if follower is None:
            failure = "" if self._child is None else self._child.failure
            refused = {NOT_FOLLOWING: 1} if failure else {}
            return FleetStats(emitted.waiting, emitted.sent, emitted.dropped, refused, failure or emitted.detail)
        detail = "; ".join(each for each in (emitted.detail, follower.detail) if each)
        return FleetStats(
            emitted.waiting,
            emitted.sent,
            emitted.dropped,
            follower.problems.refused,
            detail,
            follower.loading,
            follower.shares,
        )

    def _new_follower(self, trust: TrustFile) -> Follower:
        file = EpochFile(self._state_path())
        # What the disk refuses is tried again before the first epoch is obeyed, and reported then.
        with suppress(OSError):
            file.acquire()
        stored, loss = restore(file.read(), self.model, trust.trust.audience)
        if loss == "STATE_MISSING" and self.replica != self._options.replica:
            # A name by chance is new each time: nothing was ever kept under it.
            loss = None
        if stored.epoch is None and self._child is not None and self._child.state is not None:
            stored = self._child.state
        replica = Replica(
            who=Identity(self.replica, self._boot),
            trust=trust,
            load=self._options.on_version,
            load_timeout_s=self._options.load_timeout_s,
            artifacts=self._options.artifacts,
            asked=lambda: self._chooser.asked,
            swap=self._swap,
            beat_ms=self._options.beat_ms,
            now_ms=self._now_ms,
        )
        loaded = self._chooser.loaded
        state = boot(stored, loaded.serving.version, loaded.serving.artifact)
        return Follower(self._options.log, replica, state, file, loaded, loss)

    def _state_path(self) -> Path:
        state = self._options.state
        if state is not None and state.suffix == SUFFIX:
            named = self._child is None or self._child.named
            return state if named else state.with_name(f"{state.stem}-{os.getpid()}-{self._boot}{SUFFIX}")
        return epoch_path(self._options.state or state_folder(self._options.log), self.model, self.replica)

    def _swap(self, loaded: Loaded) -> None:
        with self._switched:
            self._chooser.swap(loaded)
            self._switched.notify_all()

    def _after_fork(self) -> None:
        # Threads do not survive a fork, and locks may have been held by one that did not.
        self._switched = threading.Condition()
        follower, child = self._follower, self._child
        state = None if child is None else child.state
        name_taken = child is not None and child.name_taken
        if follower is not None:
            follower.forget()
            state, name_taken = follower.state, name_taken or not self._closed
        self._emitter.forget()
        self._child = ForkedChild(state, name_taken=name_taken)
        self._begin()


def _reference(value: tuple[float, int] | Reference) -> Reference:
    return value if isinstance(value, Reference) else Reference(*value)


def _trust(trust: str | os.PathLike[str] | Trust | None) -> TrustFile | None:
    if trust is None:
        return None
    if isinstance(trust, Trust):
        return TrustFile(None, trust)
    if trust == DEFAULT_TRUST:
        trust = os.environ.get("UNSHIP_TRUST", DEFAULT_TRUST)
    return TrustFile(Path(trust))
