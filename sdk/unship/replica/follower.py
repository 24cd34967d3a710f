"""Follow the control topic and obey it, on a thread of its own that nothing ends but `close`.

The fence (`unship.replica.fence`) decides; this module does what follows, in the one order in which a kill at any
point is harmless: judge, write the fence to disk, acknowledge, load, swap, write, acknowledge. What cannot be written
to disk is not obeyed, because after a restart it would be forgotten. A log that is gone, a record of any bytes, a load
that raises: the old version serves on, the reason is counted, and the thread goes on following.

After each connection it begins with the newest record of its model. If the fence refuses that one, an honest command
may stand behind it (whoever can write the topic can write last), so everything that the topic still holds is judged.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from queue import Empty, SimpleQueue
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from unship.codec import encode_line
from unship.events import Ack, Epoch
from unship.log.address import connector
from unship.log.link import Link, Message, Record
from unship.replica import fence
from unship.replica.epoch_file import EpochFile
from unship.replica.fence import FenceState, Identity, Serving, Target
from unship.signing import Trust

ControlHealth: TypeAlias = Literal["OK", "STALE", "LOST"]
"""OK: the topic is read and the monitor speaks, or never spoke yet. STALE: it fell silent. LOST: it cannot be read."""

Confirmed: TypeAlias = Literal["SWITCHED", "FAILED", "NOT_WANTED"]
"""What became of a confirmation: it serves; it was said to have failed; no such switch is owed (any more)."""

LATER: Final = object()
"""What a load returns when somebody else switches and says so by `Follower.confirm`: `staged` until then."""

LOOK_S: Final = 0.5
"""Longest wait for a record before the thread asks whether the log is still there."""

RETRY_S: Final = 0.25

ACK_S: Final = 1.0
"""Longest wait for acks to be written: they stand between a command and the load of its version."""

ACK_PAUSE_S: Final = 1.0
"""Pause after acks that could not be written, in which commands are obeyed without waiting for them."""

UNSENT_MAX: Final = 1_000
"""Acks kept while the log is gone; the oldest give way, as only the newest of a replica counts."""


class _Report(Struct, frozen=True, eq=False):
    """Carry a confirmation to the thread that obeys; `answer` gets what became of it."""

    version: str
    epoch: Epoch
    ok: bool
    detail: str
    answer: SimpleQueue[Confirmed]


class Follower:
    """Obey the commands for one model, and keep what was obeyed."""

    def __init__(
        self,
        log: str,
        *,
        loaded: Serving,
        state: FenceState,
        file: EpochFile,
        who: Identity,
        trust: Trust,
        load: Callable[[str], object] | None,
        artifacts: Mapping[str, str] | None,
        swap: Callable[[Serving], None],
        beat_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        """Make a follower that is not running yet.

        Args:
            log: The address of the log, which was checked.
            loaded: What `swap` was last told, or what the process has loaded as it starts.
            state: What the fence knows, after `unship.replica.fence.boot`.
            file: Where the fence is kept.
            who: The replica and its boot, named in acks.
            trust: Whom to believe.
            load: Loads a version, on this thread; raising keeps the old one. None: there is nothing to load. Where it
                returns `LATER`, the old version counts as serving until `confirm` says otherwise.
            artifacts: The artifacts that may serve, by version; None allows all.
            swap: Makes a version the one that predictions are labelled with.
            beat_ms: How often the monitor is expected to speak, in milliseconds.
            now_ms: The clock, in milliseconds since the epoch: stamps acks, and tells when commands expire.
        """
        self._connector = connector(log, now_ms)
        self._current = loaded
        self._state = state
        self._file = file
        self._who = who
        self._trust = trust
        self._load = load
        self._artifacts = artifacts
        self._registered = None if artifacts is None else frozenset(artifacts.values())
        self._swap = swap
        self._beat_ms = beat_ms
        self._now_ms = now_ms
        self._key = state.model.encode()
        self._ack_key = f"{state.model}/{who.replica}".encode()
        self._link: Link | None = None
        self._connected = False
        self._acks_after = float("-inf")
        self._unsent: deque[Message] = deque(maxlen=UNSENT_MAX)
        self._announced = False
        self._stop = threading.Event()
        self._settled = threading.Event()
        # Set by `close` and by `confirm`, so that neither waits for the log.
        self._wake = threading.Event()
        self._reports: SimpleQueue[_Report] = SimpleQueue()
        self._refused: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="unship-follower", daemon=True)
        self.detail = ""

    def start(self, wait_s: float) -> None:
        """Start following; wait until what was owed is loaded and the newest command was read, or the log is away."""
        self._thread.start()
        self._settled.wait(wait_s)

    def close(self, timeout_s: float) -> None:
        """Stop following; a load that is running is not interrupted, and is waited for at most `timeout_s` seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._file.release()

    def forget(self) -> None:
        """Let go of the state's file in a forked child, where the thread does not run; the parent keeps its lock."""
        self._file.release()

    def confirm(self, version: str, epoch: Epoch, ok: bool, detail: str, timeout_s: float) -> Confirmed | None:
        """Take note that a load which returned `LATER` ended; None if the thread was busy for `timeout_s` seconds."""
        answer: SimpleQueue[Confirmed] = SimpleQueue()
        self._reports.put(_Report(version, epoch, ok, detail, answer))
        self._wake.set()
        try:
            return answer.get(timeout=timeout_s)
        except Empty:
            return None

    @property
    def wanted(self) -> Target | None:
        """Return what should serve by the highest epoch accepted; None before the first."""
        return self._state.wanted

    @property
    def health(self) -> ControlHealth:
        """Return how well the control topic is heard now."""
        if not self._connected:
            return "LOST"
        return "STALE" if fence.is_stale(self._state, self._now_ms(), self._beat_ms) else "OK"

    @property
    def refused(self) -> dict[str, int]:
        """Return how many records were refused and loads failed, by code."""
        # Copying a dict is one step of the interpreter, so the thread cannot add a key in the middle of it.
        return dict(self._refused)

    def _run(self) -> None:
        # Before the log is asked: a version that must not serve goes out even if the log is gone.
        self._publish()
        self._load_pending()
        self._link = link = self._connector()
        while not self._stop.is_set():
            try:
                self._follow(link)
            except Exception as error:  # noqa: BLE001 (a replica that stopped listening would be deaf for good)
                self.detail = f"control: {error}"
            self._connected = False
            self._settled.set()
            self._wake.wait(RETRY_S)
            self._take_reports()
        link.close()

    def _follow(self, link: Link) -> None:
        """Obey until told to stop; raise when the log is away or another one."""
        self._begin(link)
        self._settled.set()
        while not self._stop.is_set():
            records = link.next(LOOK_S, self._wake)
            if records:
                self._obey(records)
            self._take_reports()
            self._send()

    def _begin(self, link: Link) -> None:
        """Obey what the topic holds already."""
        record = link.begin(self._key, self._wake.is_set)
        self._connected = True
        if record is not None and not self._obey([record]):
            self._obey(link.history(record.offset, self._stop.is_set), history=True)
        if not self._announced:
            # Makes the replica, and its new boot, known before anybody commands it.
            self._post(fence.serving(self._state, self._who, self._now_ms()))

    def _obey(self, records: Iterable[Record], *, history: bool = False) -> bool:
        """Judge records in order, then act on what stands at the end; tell whether any was accepted or refreshed."""
        before = state = self._state
        acks: deque[Ack] = deque(maxlen=UNSENT_MAX)
        heard = False
        for record in records:
            now_ms = self._now_ms()
            state, verdict = fence.judge(state, record.value, record.headers, self._trust, now_ms, self._registered)
            heard = heard or verdict.kind != "REFUSED"
            if history and verdict.code == "REGRESSION":
                # Older commands stand before newer ones in every log.
                continue
            if verdict.code is not None:
                self._refuse(verdict.code, f"control offset {record.offset}: {verdict.code}: {verdict.detail}")
            # A flood of equal refusals is one statement, not a flood of acks.
            acks.extend(ack for ack in fence.acks(state, verdict, self._who, now_ms) if not _repeats(acks, ack))
        if fence.must_store(before, state) and not self._store(state):
            owed = state.wanted
            if owed is not None:
                self._post(fence.load_failed(before, owed, self._who, self._now_ms()))
            return heard
        self._state = state
        self._publish()
        self._post(*acks)
        if heard:
            self._load_pending()
        return heard

    def _load_pending(self) -> None:
        """Load what should serve and swap it in; on any failure the old version serves on and a refresh tries again."""
        target = fence.pending(self._state)
        if target is None:
            return
        try:
            self._check_artifact(target)
            later = self._load is not None and self._load(target.version) is LATER
        except BaseException as error:  # noqa: BLE001 (SystemExit too: a load may not end the thread that obeys)
            self._refuse("LOAD_FAILED", f"version {target.version} was not loaded: {type(error).__name__}: {error}")
            self._post(fence.load_failed(self._state, target, self._who, self._now_ms()))
            return
        self._post(fence.staged(self._state, target, self._who, self._now_ms()))
        if not later:
            self._switch(target)

    def _take_reports(self) -> None:
        if not self._stop.is_set():
            self._wake.clear()
        while not self._reports.empty():
            report = self._reports.get()
            report.answer.put(self._settle(report))

    def _settle(self, report: _Report) -> Confirmed:
        """Believe a confirmation only about the switch that is owed now: an older one was overtaken meanwhile."""
        target, serving = fence.pending(self._state), self._state.serving
        if target is None or (target.version, target.epoch) != (report.version, report.epoch):
            again = (
                report.ok and serving is not None and (serving.version, serving.epoch) == (report.version, report.epoch)
            )
            return "SWITCHED" if again else "NOT_WANTED"
        if report.ok:
            self._switch(target)
            return "SWITCHED"
        self._refuse("LOAD_FAILED", f"version {target.version} was not loaded: {report.detail}")
        self._post(fence.load_failed(self._state, target, self._who, self._now_ms()))
        return "FAILED"

    def _switch(self, target: Target) -> None:
        self._state = fence.switched(self._state, target)
        self._publish()
        # Unwritten, it is loaded once more after a restart: the epoch itself is on disk since before the load.
        self._store(self._state)
        self._post(fence.serving(self._state, self._who, self._now_ms()))

    def _check_artifact(self, target: Target) -> None:
        if self._artifacts is None or self._artifacts.get(target.version) == target.artifact:
            return
        raise ValueError(f"its artifact here is {self._artifacts.get(target.version)}, the command's {target.artifact}")

    def _publish(self) -> None:
        serving = self._state.serving
        if serving is not None and serving != self._current:
            self._current = serving
            self._swap(serving)

    def _store(self, state: FenceState) -> bool:
        try:
            self._file.write(fence.encode_state(state))
        except Exception as error:  # noqa: BLE001 (a full disk is no reason to stop following)
            self.detail = f"{self._file.path}: cannot be written, so nothing new is obeyed: {error}"
            return False
        return True

    def _refuse(self, code: str, detail: str) -> None:
        self._refused[code] += 1
        self.detail = detail

    def _post(self, *acks: Ack) -> None:
        self._announced = self._announced or any(ack.stage == "serving" for ack in acks)
        self._unsent.extend(Message(encode_line(ack), self._ack_key) for ack in acks)
        self._send()

    def _send(self) -> None:
        """Append the acks that wait; a log that is away keeps them waiting, and holds up nothing else."""
        begun = time.monotonic()  # noqa: TID251
        if self._link is None or not self._connected or not self._unsent or begun < self._acks_after:
            return
        batches = {"acks": list(self._unsent)}
        try:
            while any(batches.values()):
                for refusal in self._link.append(batches, lambda: time.monotonic() > begun + ACK_S):  # noqa: TID251
                    self.detail = f"acks: {refusal.reason}: {refusal.detail}"
        except Exception as error:  # noqa: BLE001 (the log's troubles are not the replica's)
            self.detail = f"acks: {error}"
            self._acks_after = time.monotonic() + ACK_PAUSE_S  # noqa: TID251
        self._unsent.clear()
        self._unsent.extend(batches.get("acks", ()))


def _repeats(acks: deque[Ack], ack: Ack) -> bool:
    return bool(acks) and ack.stage == "refused" and (ack.epoch, ack.code) == (acks[-1].epoch, acks[-1].code)
