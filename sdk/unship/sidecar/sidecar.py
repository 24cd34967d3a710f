"""Connect a replica in another language: take its events, return what to serve, accept its confirmations.

The sidecar is the replica of the library, the fence included; only the switch happens elsewhere. There are four ways:
the application asks what is desired and confirms when it serves (`staged` until then), or the sidecar runs a command,
or it writes the version into a file, or the application has every version at hand and evaluates a feature flag for each
request. A switch that fails leaves the old version and is acknowledged as `LOAD_FAILED`.

A command and a file hold one version. Where one of them switches, no other version is given a share of the requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from unship.budgets.table import SIDECAR_BODY, SIDECAR_EVENTS
from unship.codec import Limits, decode_line
from unship.emitter import Emitter
from unship.events import Epoch, Feedback, Name, Prediction
from unship.fleet import Fleet
from unship.rejections import RejectCode, Rejection
from unship.replica.choice import Choice, Loaded
from unship.replica.fence import NO_EPOCH
from unship.replica.replica import LATER, Confirmed
from unship.text import printable

BODY_BYTES_MAX: Final = SIDECAR_BODY.limit
"""Largest body of a request: a thousand events of about 1 KiB."""

EVENTS_MAX: Final = SIDECAR_EVENTS.limit
WAIT_S_MAX: Final = 60.0
QUEUE: Final = 10_000
DETAIL_CHARS_MAX: Final = 300

T = TypeVar("T")

LOOK_S: Final = 0.1
"""How often a waiting request looks at what is desired: a command may be accepted without anything to load."""


class Desired(Struct, frozen=True, omit_defaults=True):
    """Answer what should serve; `epoch` is None before the first command.

    `shares` names the version that should answer a share of the requests, and whether it does or why not
    (`unship.replica.holdback`): one that is CONFIRMING is confirmed under the same epoch.
    """

    version: str
    epoch: Epoch | None
    artifact: str | None
    shares: dict[str, str] = {}

    @property
    def mark(self) -> str:
        """Return the epoch as text, for an ETag or a query: `1.7.0`."""
        return ".".join(map(str, self.epoch or NO_EPOCH))


class Confirmation(Struct, frozen=True):
    """Report how the application's own switch ended."""

    version: Name
    epoch: Epoch
    ok: bool = True
    detail: str = ""


class Full(Exception):
    """Report that the queue has no room for the events; send them again later."""


class Sidecar:
    """Connect one replica of one model, whatever it is written in, with the log.

    Every method may be called from any thread.
    """

    def __init__(
        self,
        fleet: Callable[[Callable[[str], object]], Fleet],
        log: str,
        switch: Callable[[str], None] | None,
        *,
        pack: bool = False,
        flags: bool = False,
    ) -> None:
        """Make a sidecar that is not running yet.

        Args:
            fleet: Makes the replica, given what loads a version.
            log: The address of the log, which was checked.
            switch: Switches to a version or raises; None where the application switches and confirms.
            pack: Whether events of one partition share records.
            flags: Whether the application has every version at hand, so that there is nothing to switch or to confirm.
        """
        self._switch = switch
        self._flags = flags
        self._failed: dict[str, Epoch] = {}
        self._emitter = Emitter(log, queue=QUEUE, pack=pack)
        self._fleet = fleet(self._load)
        self._stop = threading.Event()
        self._accepting = threading.Lock()

    def start(self) -> None:
        """Start; see `Fleet.start`."""
        self._emitter.start()
        if self._switch is None:
            # Nothing is loaded here, so another version may have its share from the start.
            self._fleet.choose()
        self._fleet.start()

    def close(self) -> None:
        """End waiting requests, send what waits, and stop following."""
        self._stop.set()
        self._emitter.close()
        self._fleet.close()

    @property
    def confirms(self) -> bool:
        """Return whether the application has to confirm its switches."""
        return self._switch is None and not self._flags

    @property
    def model(self) -> str:
        """Return the model, which is the flag's key too."""
        return self._fleet.model

    @property
    def closing(self) -> bool:
        """Return whether requests that wait should end."""
        return self._stop.is_set()

    @property
    def loaded(self) -> Loaded:
        """Return what requests are answered by."""
        return self._fleet.loaded

    def choose(self, unit: str | None) -> Choice:
        """Return the version that answers a unit: what serves, where a command or a file switches."""
        if self._switch is None:
            return self._fleet.choose(unit)
        now = self._fleet.current
        return Choice(now.version, now.epoch, now.artifact)

    def changed(self, known: Loaded, wait_s: float) -> Loaded:
        """Return what requests are answered by, as soon as it is something else or the wait is over."""
        found = self._watched(lambda: None if self.loaded is known else self.loaded, wait_s)
        return known if found is None else found

    def accept(self, body: bytes) -> int | tuple[int, Rejection]:
        """Queue the events of a body: all of them, or none and the place and rejection of the first bad one.

        Raises:
            Full: The queue has no room for them.
        """
        raws = _split(body)
        if isinstance(raws, Rejection):
            return 0, raws
        events: list[Prediction | Feedback] = []
        for index, raw in enumerate(raws):
            event = self._event(raw)
            if isinstance(event, Rejection):
                return index, event
            events.append(event)
        # One body at a time, so that what was accepted is not dropped after all.
        with self._accepting:
            if not self._emitter.has_room(events):
                raise Full
            for event in events:
                self._emitter.put(event)
        return len(events)

    def desired(self) -> Desired:
        """Return what should serve now."""
        target, serving = self._fleet.desired, self._fleet.current
        found = target or serving
        shares: dict[str, str] = {**self._fleet.stats.shares}
        return Desired(found.version, found.epoch, found.artifact, shares)

    def wait_beyond(self, known: Callable[[Desired], bool], wait_s: float) -> Desired | None:
        """Return what is desired as soon as it is not known; None when `wait_s` seconds are up or the sidecar ends."""

        def news() -> Desired | None:
            desired = self.desired()
            return None if known(desired) else desired

        return self._watched(news, min(wait_s, WAIT_S_MAX))

    def _watched(self, news: Callable[[], T | None], wait_s: float) -> T | None:
        """Return news as soon as there are some; None when `wait_s` seconds are up or the sidecar ends."""
        deadline = time.monotonic() + wait_s  # noqa: TID251
        while (found := news()) is None:
            left = deadline - time.monotonic()  # noqa: TID251
            if left <= 0 or self._stop.wait(min(left, LOOK_S)):
                return None
        return found

    def confirm(self, confirmation: Confirmation) -> Confirmed | None:
        """Apply the application's confirmation of its switch."""
        detail = (
            "reported by the application"
            if not confirmation.detail
            else printable(confirmation.detail, DETAIL_CHARS_MAX)
        )
        answer = self._fleet.confirm(confirmation.version, confirmation.epoch, ok=confirmation.ok, detail=detail)
        if answer == "FAILED":
            # One epoch concerns two versions at most.
            same = {name: epoch for name, epoch in self._failed.items() if epoch == confirmation.epoch}
            self._failed = {**same, confirmation.version: confirmation.epoch}
        elif answer == "SWITCHED":
            self._failed = {name: epoch for name, epoch in self._failed.items() if name != confirmation.version}
        return answer

    def health(self) -> dict[str, Any]:
        """Return what serves and what was counted, for people and probes."""
        fleet, emitted = self._fleet.stats, self._emitter.stats
        return {
            "status": "ok",
            "model": self._fleet.model,
            "replica": self._fleet.replica,
            "serving": self._fleet.current.version,
            "desired": self.desired().version,
            "control": self._fleet.control_health,
            "waiting": emitted.waiting,
            "sent": emitted.sent,
            "dropped": emitted.dropped,
            "refused": fleet.refused,
            "loading": fleet.loading,
            "shares": fleet.shares,
        }

    def _load(self, version: str) -> object:
        if self._switch is not None:
            self._switch(version)
        if self._switch is not None or self._flags:
            return None
        target = self._fleet.desired
        if target is not None and self._failed.get(version) == target.epoch:
            # A refresh asks again; the last confirmation holds until the next one.
            raise RuntimeError("the application could not switch")
        return LATER

    def _event(self, raw: Raw) -> Prediction | Feedback | Rejection:
        """Return one event with what the sidecar knows better filled in where it is absent."""
        loaded = self.loaded
        event = decode_line(self._filled(bytes(raw), loaded))
        if isinstance(event, Rejection):
            return event
        if not isinstance(event, Prediction | Feedback):
            return Rejection(RejectCode.UNKNOWN_TYPE, "Expected a prediction or feedback - at `$.type`")
        if event.model != self._fleet.model:
            return Rejection(RejectCode.BAD_EVENT, "Expected the model of this sidecar - at `$.model`")
        known: dict[str, Any] = {"at": None}
        if event.ts is None:
            known["ts"] = time.time_ns() // 1_000_000  # noqa: TID251
        if isinstance(event, Prediction):
            known["replica"] = event.replica or self._fleet.replica
            by = {each.version: each for each in (loaded.holdback, loaded.serving) if each is not None}
            serving = by.get(event.version)
            if serving is not None and event.epoch is None:
                known |= {"epoch": serving.epoch, "artifact": event.artifact or serving.artifact}
        return msgspec.structs.replace(event, **known)

    def _filled(self, raw: bytes, loaded: Loaded) -> bytes:
        """Return the event with its model and version; what is no object or too large stays for the codec to refuse.

        A prediction may name its `unit`, which goes no further: the event gets its hash, and the version that is
        chosen for it, unless it names one.
        """
        if len(raw) > Limits().max_bytes:
            return raw
        try:
            fields = msgspec.json.decode(raw, type=dict[str, Raw])
            kind = fields.get("type")
            fields.setdefault("model", Raw(msgspec.json.encode(self._fleet.model)))
            if kind is not None and bytes(kind) == b'"prediction"':
                for name, value in self._labels(fields, loaded).items():
                    fields.setdefault(name, Raw(msgspec.json.encode(value)))
                fields.pop("unit", None)
            return msgspec.json.encode(fields)
        except (ValueError, RecursionError, OverflowError):
            return raw

    def _labels(self, fields: dict[str, Raw], loaded: Loaded) -> dict[str, Any]:
        if "unit" not in fields:
            labels: dict[str, Any] = {"version": loaded.serving.version}
        else:
            choice = self.choose(msgspec.json.decode(fields["unit"], type=str))
            labels = {"version": choice.version, "unit_hash": choice.unit_hash}
        named = msgspec.json.decode(fields["version"]) if "version" in fields else labels["version"]
        if loaded.holdback is not None and named == loaded.holdback.version:
            labels["role"] = "holdback"
        return labels


def _split(body: bytes) -> list[Raw] | Rejection:
    """Return the events of a body: an array's entries, or the body as the only one."""
    if len(body) > BODY_BYTES_MAX:
        return Rejection(RejectCode.TOO_LARGE, f"{len(body)} bytes > limit {BODY_BYTES_MAX} bytes")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return Rejection(RejectCode.NOT_UTF8, f"byte {error.start} is not UTF-8")
    body = body.strip(b" \t\r\n")
    if not body.startswith(b"["):
        return [Raw(body)]
    try:
        raws = msgspec.json.decode(body, type=list[Raw])
    except RecursionError:
        return Rejection(RejectCode.TOO_DEEP, "nested deeper than the parser allows")
    except ValueError:
        return Rejection(RejectCode.BAD_JSON, "not one JSON array")
    if len(raws) > EVENTS_MAX:
        return Rejection(RejectCode.TOO_LARGE, f"{len(raws)} events > limit {EVENTS_MAX}")
    return raws
