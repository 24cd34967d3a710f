"""Follow the control topic and obey it, on a thread of its own that only `close` ends.

The fence (`unship.replica.fence`) decides, `unship.replica.applier` applies; this module reads. A log that is away, a
record of any bytes, a load that raises: the old version serves on, the reason is counted, and the thread goes on.

After each connection it begins with the newest record of its model. If the fence refuses that one, an honest command
may precede it (an attacker who can write the topic can write last), so all records that the topic holds are judged.
They are too where no epoch was kept, or its key was revoked: the newest record may be an older command, written again.
"""

from __future__ import annotations

import threading
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from unship.codec import decode_value
from unship.events import Ack, Epoch
from unship.log.address import connector
from unship.log.link import RETRY_MIN_S, Link
from unship.replica import fence
from unship.replica.acks import AckQueue, Problems
from unship.replica.applier import CommandApplier
from unship.replica.choice import Loaded
from unship.replica.epoch_file import EpochFile
from unship.replica.fence import FenceState, StateLoss, Target
from unship.replica.holdback import HoldbackState
from unship.replica.replica import Confirmation, Confirmed, Replica

ControlHealth: TypeAlias = Literal["OK", "STALE", "LOST"]
"""OK: the topic is read, and the monitor publishes or never did. STALE: it stopped publishing. LOST: no connection."""

LOOK_S: Final = 0.5
"""Longest wait for a record before the thread asks whether the log is still there."""

ABANDON_S: Final = 1.0
"""Longest wait for the thread to leave a load that hangs, as it closes."""

RETRY_S: Final = 5 * RETRY_MIN_S


class _Request(Struct, frozen=True, eq=False):
    """Carry a confirmation to the thread that obeys; `answer` gets its outcome."""

    confirmation: Confirmation
    answer: SimpleQueue[Confirmed]


class Follower:
    """Obey the commands for one model, and keep what was obeyed."""

    def __init__(
        self, log: str, replica: Replica, state: FenceState, file: EpochFile, loaded: Loaded, loss: StateLoss | None
    ) -> None:
        """Make a follower that is not running yet.

        Args:
            log: The address of the log, which was checked.
            replica: Who obeys, and how it loads and swaps.
            state: The state of the fence, after `unship.replica.fence.boot`.
            file: Where the fence is kept.
            loaded: What was swapped in last, or what the process has loaded as it starts.
            loss: Why what an earlier process of this name kept could not be read, if it is to be reported.
        """
        self._connector = connector(log, replica.now_ms)
        self._replica = replica
        self._file = file
        self.problems = Problems()
        self._acks = AckQueue(self.problems)
        self._applier = CommandApplier(replica, state, file, loaded, self._acks, self.problems, loss)
        self._stop = threading.Event()
        self._settled = threading.Event()
        # Set by `close` and by `confirm`, so that neither waits for the log.
        self._wake = threading.Event()
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="unship-follower", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def settle(self, wait_s: float) -> None:
        """Wait until the pending target is loaded and the newest command was read, or the log is away."""
        self._settled.wait(wait_s)

    def close(self, timeout_s: float) -> None:
        """Stop following; a load that is running is not interrupted, and is waited for at most `timeout_s` seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._applier.abandon_loads()
            self._thread.join(ABANDON_S)
        if not self._thread.is_alive():
            self._file.release()

    def forget(self) -> None:
        """Close the state's file in a forked child, where the thread does not run; the parent keeps its lock."""
        self._file.release()

    def confirm(self, version: str, epoch: Epoch, ok: bool, detail: str, timeout_s: float) -> Confirmed | None:
        """Confirm a switch whose load returned `LATER`; return None if the thread was busy for `timeout_s` seconds."""
        answer: SimpleQueue[Confirmed] = SimpleQueue()
        self._requests.put(_Request(Confirmation(version, epoch, ok, detail), answer))
        self._wake.set()
        try:
            return answer.get(timeout=timeout_s)
        except Empty:
            return None

    @property
    def wanted(self) -> Target | None:
        """Return what should serve by the highest epoch accepted; None before the first."""
        return self._applier.state.wanted

    @property
    def health(self) -> ControlHealth:
        """Return the state of the connection to the control topic."""
        if not self._acks.connected:
            return "LOST"
        return "STALE" if fence.is_stale(self._applier.state, self._replica.now_ms(), self._replica.beat_ms) else "OK"

    @property
    def state(self) -> FenceState:
        """Return what the fence knows now."""
        return self._applier.state

    @property
    def shares(self) -> dict[str, HoldbackState]:
        """Return the version that has a share, and whether it answers or why not."""
        return self._applier.shares

    @property
    def loading(self) -> dict[str, float]:
        """Return the versions that are being loaded, each with its seconds so far."""
        return self._applier.loading

    @property
    def detail(self) -> str:
        """Return what is wrong now: loads that take long, and the newest problem."""
        return "; ".join(each for each in (self._applier.slow_loads, self.problems.detail) if each)

    def _run(self) -> None:
        # Before the log is asked: a version that must not serve is taken out even if the log is away.
        self._applier.swap()
        self._applier.load_pending()
        self._answer_program()
        link = self._connector()
        while not self._stop.is_set():
            try:
                self._follow(link)
            except Exception as error:  # noqa: BLE001 (a thread that ended would never obey again)
                self.problems.note(f"control: {error}")
            self._acks.disconnect()
            self._settled.set()
            self._wake.wait(RETRY_S)
            self._answer_program()
        self._applier.abandon_loads()
        link.close()

    def _follow(self, link: Link) -> None:
        """Obey until `close`; raise when the log is away or another one."""
        self._begin(link)
        self._settled.set()
        while not self._stop.is_set():
            records = link.next(LOOK_S, self._wake)
            if self._is_trust_new():
                # What was obeyed under a key that is revoked counts no more, and what was refused may hold now.
                self._begin(link)
            elif records:
                self._applier.obey(records)
            self._answer_program()
            self._acks.send()
        self._applier.leave()

    def _is_trust_new(self) -> bool:
        trust = self._replica.trust
        new = trust.reload()
        if trust.problem:
            self.problems.note(f"trust: {trust.problem}")
        return new

    def _begin(self, link: Link) -> None:
        """Obey what the topic holds already."""
        record = link.begin(self._applier.state.model.encode(), self._wake.is_set)
        kept_before = self._file.was_written or self._obeyed_before(link)
        self._acks.connect(link)
        if record is not None:
            knows = self._applier.knows_epoch
            if not knows or not self._applier.obey([record]):
                history = link.history(record.offset, self._stop.is_set)
                self._applier.obey(chain(history, () if knows else (record,)), newest=record.offset)
        if not self._stop.is_set():
            self._applier.announce(kept_before=kept_before)

    def _obeyed_before(self, link: Link) -> bool:
        """Return whether an earlier process of this name acknowledged a command, where replicas may read that."""
        record = link.newest_ack(f"{self.state.model}/{self._replica.who.replica}".encode())
        ack = None if record is None else decode_value("ack", record.value)
        return isinstance(ack, Ack) and ack.epoch > fence.NO_EPOCH

    def _answer_program(self) -> None:
        if not self._stop.is_set():
            self._wake.clear()
        while not self._requests.empty():
            request = self._requests.get()
            request.answer.put(self._applier.confirm(request.confirmation))
        self._applier.look()
