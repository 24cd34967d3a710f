"""Keep what the topics of a log show of its monitor: its status, the newest decisions, and the open incidents.

The web answers from this alone. It is filled by following the topics `snapshots`, `decisions` and `alerts` from their
beginning, so that it shows the same in each process, whichever of them decides.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from actions.checkpoints import CHECKPOINT_KEY
from actions.control_records import is_authentic
from actions.incidents import Alert, read_alert
from actions.journal import DecisionHead, read_decision
from actions.reasons import Action, Reason
from streams.fold.status import Status
from streams.fold.status_records import PREFIX, merged
from unship.signing import Headers, Trust

TOPICS: Final = ("snapshots", "decisions", "alerts")
"""The topics that are followed."""

HALT: Final = b"halted/"
DECISIONS_MAX: Final = 1_000
DECISION_BYTES_MAX: Final = 65_536
"""Of a larger decision the head alone is kept."""

INCIDENTS_MAX: Final = 10_000
CONVERGENCE_BUCKETS_S: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0)


class Seen(NamedTuple):
    """A record of a topic; `append_ts` is in ms."""

    topic: str
    append_ts: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Kept(NamedTuple):
    """A decision: its head, and its bytes."""

    head: DecisionHead
    value: bytes


class Convergence:
    """How long rollbacks took until they were obeyed, as a classic histogram."""

    def __init__(self) -> None:
        self.counts = [0] * (len(CONVERGENCE_BUCKETS_S) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[sum(seconds > bound for bound in CONVERGENCE_BUCKETS_S)] += 1
        self.seconds += seconds


class Board:
    """Filled by one thread and read by the same one."""

    def __init__(self, trust: Callable[[], Trust | None], works: Callable[[], int | None] = lambda: None) -> None:
        """Begin with nothing.

        Args:
            trust: Returns the keys that sign the journal, None for none.
            works: Returns the time in ms if the only monitor of the log is in this process, and works: it reports
                nothing while nothing changes.
        """
        self._trust, self._works = trust, works
        self._reported_ts: int | None = None
        self._records: dict[bytes, bytes | None] = {}
        self._halts: dict[bytes, str] = {}
        self._status: Status | None = None
        self.caught_up = False
        self.decisions: deque[Kept] = deque(maxlen=DECISIONS_MAX)
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.firing: dict[str, Alert] = {}
        self.convergence = Convergence()
        self._newest_alert: dict[str, int] = {}

    def reach(self, *, end: bool) -> None:
        """Note whether the topics were read to where they ended when reading began."""
        self.caught_up = end

    def take(self, record: Seen) -> None:
        """Take the next record of a topic."""
        if record.topic == "snapshots":
            self._take_status(record)
        elif record.topic == "alerts":
            self._take_alert(read_alert(record.value))
        elif record.key != CHECKPOINT_KEY and is_authentic(record.value, record.headers, self._trust()):
            self._take_decision(record.value or b"")

    def _take_status(self, record: Seen) -> None:
        key = record.key or b""
        if key.startswith(PREFIX):
            if record.value:
                self._records[key] = record.value
            else:
                self._records.pop(key, None)
            self._status = None
            if key.count(b"/") == 1:
                self._reported_ts = max(record.append_ts, self._reported_ts or 0)
        elif key.startswith(HALT):
            self._halts[key] = (record.value or b"").decode(errors="replace")
            self._status = None

    def _take_decision(self, value: bytes) -> None:
        head = read_decision(value)
        if head is None:
            return
        self.counts[head.model, head.action, head.reason] += 1
        kept = value if len(value) <= DECISION_BYTES_MAX else msgspec.json.encode(head)
        self.decisions.append(Kept(head, kept))

    def _take_alert(self, alert: Alert | None) -> None:
        if alert is None or alert.ts <= self._newest_alert.get(alert.incident, -1):
            return
        self._newest_alert[alert.incident] = alert.ts
        if len(self._newest_alert) > INCIDENTS_MAX:
            del self._newest_alert[next(iter(self._newest_alert))]
        before = self.firing.pop(alert.incident, None)
        if alert.status == "firing":
            self.firing[alert.incident] = alert
            if len(self.firing) > INCIDENTS_MAX:
                del self.firing[next(iter(self.firing))]
        elif before is not None and before.action == Action.ROLLBACK:
            self.convergence.observe((alert.ts - before.ts) / 1_000)

    @property
    def seen_ts(self) -> int | None:
        """Return when a monitor last showed that it works, in ms; None if none did."""
        found = [ts for ts in (self._reported_ts, self._works()) if ts is not None]
        return max(found, default=None)

    def seen_of(self, model: str) -> int | None:
        """Return when the monitor of a model last showed that it works, in ms; of several, others may have ended."""
        own = self.status.seen(model)
        found = [ts for ts in (self.seen_ts if own is None else own.seen_ts, self._works()) if ts is not None]
        return max(found, default=None)

    @property
    def status(self) -> Status:
        """Return the status of all models."""
        if self._status is None:
            halted = [why for _, why in sorted(self._halts.items()) if why]
            self._status = msgspec.structs.replace(merged(self._records), halted=halted)
        return self._status

    def newest_of(self, model: str, version: str) -> DecisionHead | None:
        """Return the newest decision about a version that is kept, None if there is none."""
        found = (kept.head for kept in reversed(self.decisions))
        return next((head for head in found if (head.model, head.version) == (model, version)), None)

    def incident_of(self, model: str, version: str) -> Alert | None:
        """Return the open incident of a version that is no notice, None if there is none."""
        found = (alert for alert in self.firing.values() if alert.severity == "page")
        return next((alert for alert in found if (alert.model, alert.version) == (model, version)), None)


def reason_of(name: str) -> Reason | None:
    """Return the reason of a name, None for one that this program does not know."""
    return Reason.__members__.get(name)
