"""Keep the holdback loaded: the version that answers a share of the units while another one serves.

It is loaded once the program has asked for a choice (`Fleet.choose`), and not before: a program that answers everybody
by `Fleet.current` is neither slowed down nor given a second version, and what its replica acknowledges stays true. What
cannot be loaded is no reason to refuse a command: the version that serves then answers everybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct

from unship.commands import is_quarantined
from unship.events import Epoch
from unship.replica import fence
from unship.replica.choice import Loaded
from unship.replica.fence import NO_EPOCH, FenceState, Serving
from unship.replica.loading import LoadsHang
from unship.replica.replica import LATER, Replica

HoldbackState: TypeAlias = Literal[
    "ANSWERING",
    "NOT_ASKED",
    "SWITCHING",
    "LOADING",
    "CONFIRMING",
    "LOAD_FAILED",
    "QUARANTINED",
    "UNREGISTERED_ARTIFACT",
]
"""Whether a version answers its share, or why not.

ANSWERING: it does. NOT_ASKED: the program never called `choose`. SWITCHING: what should serve does not serve yet.
LOADING: it is being loaded. CONFIRMING: `on_version` returned `LATER`. LOAD_FAILED: it could not be loaded, which the
next heartbeat tries again. QUARANTINED: it must not answer. UNREGISTERED_ARTIFACT: it is not among the `artifacts`.
"""


class _Held(Struct, frozen=True, eq=False):
    """Hold a version that was loaded; `confirmed` by whom switches elsewhere, where `object` is `LATER`."""

    version: str
    artifact: str | None
    object: object
    confirmed: bool = True


class Holdback:
    """Hold the version that has a share; used by one thread, `shown` is read by any."""

    def __init__(self, replica: Replica, loaded: Loaded, run: Callable[[str], object]) -> None:
        """Take over what is loaded.

        Args:
            replica: The replica.
            loaded: What the process has loaded as it starts.
            run: Loads a version within the deadline, or raises.
        """
        self._artifacts = replica.artifacts
        self._run = run
        self._held: _Held | None = None
        if loaded.holdback is not None:
            self._held = _Held(loaded.holdback.version, loaded.holdback.artifact, loaded.holdback_result)
        self._asked = replica.asked
        self.shown: dict[str, HoldbackState] = {}

    def judge(self, state: FenceState) -> HoldbackState | None:
        """Return whether the version with a share answers, or why not; None where no version has one.

        What may not answer any more is let go, and so is what has no share any more.
        """
        version, target = fence.holdback(state), fence.pending(state)
        held = self._held
        if held is not None and held.version not in (version, target and target.version):
            held = self._held = None
        if version is None:
            self.shown = {}
            return None
        why = self._why(state, version, held)
        if why in ("QUARANTINED", "UNREGISTERED_ARTIFACT"):
            self._held = None
        self.shown = {version: why}
        return why

    def _why(self, state: FenceState, version: str, held: _Held | None) -> HoldbackState:
        if self._artifacts is not None and version not in self._artifacts:
            return "UNREGISTERED_ARTIFACT"
        if is_quarantined(state.quarantine, version, self._artifact(version) or _artifact_of(held)):
            return "QUARANTINED"
        if not self._asked():
            return "NOT_ASKED"
        if held is not None and not held.confirmed:
            return "CONFIRMING"
        if fence.pending(state) is not None:
            return "SWITCHING"
        if held is not None:
            return "ANSWERING"
        return "LOAD_FAILED" if self.shown.get(version) == "LOAD_FAILED" else "LOADING"

    def loaded(self, state: FenceState, serving: Serving, it: object) -> Loaded:
        """Return what requests are answered by, given what serves and what was loaded for it."""
        period = state.period_epoch or NO_EPOCH
        held = self._held
        if self.judge(state) != "ANSWERING" or held is None:
            return Loaded(serving, it, period_epoch=period)
        holdback = Serving(held.version, state.epoch, held.artifact)
        return Loaded(serving, it, holdback, _shared(held.object), state.shares[held.version], period)

    def load(self, state: FenceState) -> str:
        """Load the version with a share if that is due; return what went wrong, empty if nothing did."""
        version, why = fence.holdback(state), self.judge(state)
        if version is None or why not in ("LOADING", "LOAD_FAILED", "CONFIRMING"):
            return ""
        self.shown = {version: "LOADING"}
        try:
            it = self._run(version)
        except LoadsHang as error:
            return self.fail(version, str(error))
        except BaseException as error:  # noqa: BLE001 (SystemExit too: a load may not end the thread that obeys)
            return self.fail(version, f"{type(error).__name__}: {error}")
        self._held = _Held(version, self._artifact(version), it, it is not LATER)
        self.judge(state)
        return ""

    def fail(self, version: str, detail: str) -> str:
        """Note that the version could not be loaded, and return that as a sentence."""
        self._held = None
        self.shown = {version: "LOAD_FAILED"}
        return f"version {version} was not loaded to answer its share: {detail}"

    def keep(self, state: FenceState, serving: Serving, it: object) -> None:
        """Keep what served until now, if it is to answer a share from now on."""
        if self._asked() and serving.version == fence.holdback(state):
            self._held = _Held(serving.version, serving.artifact, it)

    def held(self, version: str, artifact: str | None) -> tuple[object] | None:
        """Return what was loaded for a version that is to serve now, so that a way back needs no second load."""
        held = self._held
        if held is None or held.object is LATER or held.version != version:
            return None
        if held.artifact is not None and artifact is not None and held.artifact != artifact:
            return None
        return (held.object,)

    def confirm(self, state: FenceState, version: str, epoch: Epoch, ok: bool) -> bool | None:
        """Apply a confirmation of the holdback; return whether it answers now, None if it is of another."""
        held = self._held
        if held is None or (version, epoch) != (held.version, state.epoch) or held.object is not LATER:
            return None
        if ok:
            self._held = _Held(held.version, held.artifact, LATER)
        return ok

    def _artifact(self, version: str) -> str | None:
        return None if self._artifacts is None else self._artifacts.get(version)


def _artifact_of(held: _Held | None) -> str | None:
    return None if held is None else held.artifact


def _shared(it: object) -> object:
    return None if it is LATER else it
