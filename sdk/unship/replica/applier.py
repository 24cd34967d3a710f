"""Apply commands: do what the fence decided, in the one order in which a kill at any point is harmless.

Judge, write the fence to disk, acknowledge, load, swap, write, acknowledge. What cannot be written to disk is not
obeyed, because after a restart it would be forgotten. Where a load raises, the old version serves on and the reason is
counted. A load that hangs counts as one that raised (`unship.replica.loading`).

Without a stored epoch a replica has nothing to compare a record with, and an older command that is still valid would
pass for news. So it judges everything that the topic holds before it obeys anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from unship.events import Ack
from unship.log.link import Record
from unship.replica import fence
from unship.replica.acks import UNSENT_MAX, AckQueue, Problems
from unship.replica.choice import Loaded
from unship.replica.epoch_file import EpochFile
from unship.replica.fence import FenceState, StateLoss, Target
from unship.replica.holdback import Holdback, HoldbackState
from unship.replica.loading import LOADS_HANG, LoadsHang, TimedLoads
from unship.replica.replica import LATER, Confirmation, Confirmed, Replica


class CommandApplier:
    """Hold the fence of one replica and apply its verdicts; used by one thread, `state` is read by any."""

    def __init__(
        self,
        replica: Replica,
        state: FenceState,
        file: EpochFile,
        loaded: Loaded,
        acks: AckQueue,
        problems: Problems,
        loss: StateLoss | None = None,
    ) -> None:
        """Take over what the fence knows.

        Args:
            replica: The replica.
            state: The state of the fence, after `unship.replica.fence.boot`.
            file: Where the fence is kept.
            loaded: What was swapped in last, or what the process has loaded as it starts.
            acks: Where acks go.
            problems: Where refusals and failures are counted.
            loss: Why what an earlier process of this name kept could not be read, if it is to be reported.
        """
        self._replica = replica
        self._registered = None if replica.artifacts is None else frozenset(replica.artifacts.values())
        self.state = state
        self._file = file
        self._loaded = loaded
        self._acks = acks
        self._problems = problems
        self._loads = None if replica.load is None else TimedLoads(replica.load, replica.load_timeout_s)
        self._holdback = Holdback(replica, loaded, self._run)
        self._loss = loss

    def announce(self, *, kept_before: bool) -> None:
        """Acknowledge what serves, unless an ack of this boot did so: the monitor then knows this replica.

        A loss of what was kept is acknowledged too, after everything that the topic holds was judged.

        Args:
            kept_before: Whether there are signs that an epoch was kept under this name: a first start is no loss.
        """
        who, now_ms = self._replica.who, self._replica.now_ms()
        loss, self._loss = self._loss, None
        if loss is not None and (kept_before or loss != "STATE_MISSING"):
            self._problems.lose(loss, self._lost(loss))
            self._post(fence.state_lost(self.state, loss, who, now_ms))
        elif not self._acks.announced:
            self._post(fence.serving(self.state, who, now_ms))

    def leave(self) -> None:
        """Acknowledge that this replica ends, if an ack of this boot made it known."""
        if self._acks.announced:
            self._post(fence.left(self.state, self._replica.who, self._replica.now_ms()))

    def _lost(self, loss: StateLoss) -> str:
        what = "what was kept is gone" if loss == "STATE_MISSING" else "what was kept cannot be used"
        return f"{loss}: {self._file.path}: {what}, so the whole topic was judged; keep the folder between restarts"

    @property
    def knows_epoch(self) -> bool:
        """Return whether there is an epoch to compare records with: one was obeyed, and its key is trusted with it."""
        state = self.state
        return state.epoch is not None and self._replica.trust.trust.binds(state.key, state.epoch)

    @property
    def shares(self) -> dict[str, HoldbackState]:
        """Return the version that has a share, and whether it answers or why not."""
        return self._holdback.shown

    def look(self) -> None:
        """Load what has a share as soon as the program asks for choices."""
        if "NOT_ASKED" in self.shares.values() and self._replica.asked():
            self._load_holdback()

    @property
    def loading(self) -> dict[str, float]:
        """Return the versions that are being loaded, each with its seconds so far."""
        return {} if self._loads is None else self._loads.running

    @property
    def slow_loads(self) -> str:
        """Describe the loads that take long; empty if there is none."""
        return "" if self._loads is None else self._loads.described()

    def abandon_loads(self) -> None:
        """Wait for no load any more; called by another thread, or at the end of this one."""
        if self._loads is not None:
            self._loads.abandon()

    def obey(self, records: Iterable[Record], *, newest: int = -1) -> bool:
        """Judge records in order, then apply the resulting state; return whether any was accepted or refreshed.

        Args:
            records: In the order of their offsets.
            newest: The offset of the newest record that there was when reading began; those before it are history.
        """
        before = state = self.state
        acks: deque[Ack] = deque(maxlen=UNSENT_MAX)
        believed = False
        for record in records:
            now_ms = self._replica.now_ms()
            state, verdict = fence.judge(
                state, record.value, record.headers, self._replica.trust.trust, now_ms, self._registered
            )
            believed = believed or verdict.kind != "REFUSED"
            if record.offset < newest and verdict.code == "REGRESSION":
                # Older commands come before newer ones in every log.
                continue
            if verdict.code is not None:
                self._problems.refuse(verdict.code, f"control offset {record.offset}: {verdict.code}: {verdict.detail}")
            # A flood of equal refusals is one statement, not a flood of acks.
            acks.extend(ack for ack in fence.acks(state, verdict, self._replica.who, now_ms) if not _repeats(acks, ack))
        if fence.must_store(before, state) and not self._store(state):
            if state.wanted is not None:
                self._post(fence.load_failed(before, state.wanted, self._replica.who, self._replica.now_ms()))
            return believed
        self.state = state
        self.swap()
        self._post(*acks)
        if believed:
            self.load_pending()
        return believed

    def load_pending(self) -> None:
        """Load the pending target and swap it in, then the holdback.

        On failure the old version serves on, and a refresh tries again.
        """
        target = fence.pending(self.state)
        if target is None or self._load(target):
            self._load_holdback()

    def _load(self, target: Target) -> bool:
        """Load a target and switch to it; return whether it serves."""
        held = self._holdback.held(target.version, target.artifact)
        try:
            self._check_artifact(target)
            it = held[0] if held is not None else self._run(target.version)
        except LoadsHang as error:
            self._problems.refuse(LOADS_HANG, str(error))
            self._fail(target, str(error))
            return False
        except BaseException as error:  # noqa: BLE001 (SystemExit too: a load may not end the thread that obeys)
            if self._loads is None or not self._loads.abandoned:
                # Else the replica ends; the next one of its name finds the target on disk.
                self._fail(target, f"{type(error).__name__}: {error}")
            return False
        self._post(fence.staged(self.state, target, self._replica.who, self._replica.now_ms()))
        if it is not LATER:
            self._switch(target, it)
        return it is not LATER

    def _run(self, version: str) -> object:
        return None if self._loads is None else self._loads.run(version)

    def _load_holdback(self) -> None:
        """Load what has a share, and acknowledge it if it answers from now on."""
        before = self._loaded.holdback
        problem = self._holdback.load(self.state)
        if self._loads is not None and self._loads.abandoned:
            return
        if problem:
            self._problems.refuse("LOAD_FAILED", problem)
        self.swap()
        if (before is None) != (self._loaded.holdback is None):
            self._post(fence.serving(self.state, self._replica.who, self._replica.now_ms()))

    def confirm(self, confirmation: Confirmation) -> Confirmed:
        """Apply a confirmation if it is of the pending switch: an older one was superseded meanwhile."""
        target, serving = fence.pending(self.state), self.state.serving
        confirmed = confirmation.version, confirmation.epoch
        if target is None or (target.version, target.epoch) != confirmed:
            repeated = confirmation.ok and serving is not None and (serving.version, serving.epoch) == confirmed
            return "SWITCHED" if repeated else self._confirm_holdback(confirmation)
        if confirmation.ok:
            self._switch(target, LATER)
            self._load_holdback()
            return "SWITCHED"
        self._fail(target, confirmation.detail)
        return "FAILED"

    def _confirm_holdback(self, confirmation: Confirmation) -> Confirmed:
        answers = self._holdback.confirm(self.state, confirmation.version, confirmation.epoch, confirmation.ok)
        if answers is None:
            return "NOT_WANTED"
        if not answers:
            self._problems.refuse("LOAD_FAILED", self._holdback.fail(confirmation.version, confirmation.detail))
        self.swap()
        self._post(fence.serving(self.state, self._replica.who, self._replica.now_ms()))
        return "SWITCHED" if answers else "FAILED"

    def swap(self) -> None:
        """Answer requests by what serves by the fence, and by what has a share."""
        serving, old = self.state.serving, self._loaded
        if serving is not None:
            loaded = self._holdback.loaded(self.state, serving, old.result)
            if any(getattr(loaded, name) != getattr(old, name) for name in _LABELS):
                self._loaded = loaded
                self._replica.swap(loaded)

    def _switch(self, target: Target, it: object) -> None:
        old = self._loaded
        self.state = fence.switched(self.state, target)
        if it is not LATER:
            # Who switches elsewhere may have dropped what served, so that has to be confirmed again.
            self._holdback.keep(self.state, old.serving, old.result)
        self._loaded = msgspec.structs.replace(old, result=None if it is LATER else it)
        self.swap()
        # Unwritten, it is loaded once more after a restart: the epoch itself is on disk since before the load.
        self._store(self.state)
        self._post(fence.serving(self.state, self._replica.who, self._replica.now_ms()))

    def _post(self, *acks: Ack) -> None:
        """Post acks, each with the holdback that answers where the newest command asks for that."""
        if self.state.shares:
            beside = () if self._loaded.holdback is None else (self._loaded.holdback.version,)
            acks = tuple(msgspec.structs.replace(ack, beside=beside) for ack in acks)
        self._acks.post(*acks)

    def _fail(self, target: Target, detail: str) -> None:
        self._problems.refuse("LOAD_FAILED", f"version {target.version} was not loaded: {detail}")
        self._post(fence.load_failed(self.state, target, self._replica.who, self._replica.now_ms()))

    def _check_artifact(self, target: Target) -> None:
        artifacts = self._replica.artifacts
        if artifacts is not None and artifacts.get(target.version) != target.artifact:
            raise ValueError(f"its artifact here is {artifacts.get(target.version)}, the command's {target.artifact}")

    def _store(self, state: FenceState) -> bool:
        try:
            self._file.write(fence.encode_state(state))
        except Exception as error:  # noqa: BLE001 (a full disk is no reason to stop following)
            self._problems.note(f"{self._file.path}: cannot be written, so nothing new is obeyed: {error}")
            return False
        return True


_LABELS = ("serving", "holdback", "share", "period_epoch")


def _repeats(acks: deque[Ack], ack: Ack) -> bool:
    return bool(acks) and ack.stage == "refused" and (ack.epoch, ack.code) == (acks[-1].epoch, acks[-1].code)
