"""Acknowledge commands: keep acks while the log is away, and append them as soon as it is back."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Final

from unship.codec import encode_line
from unship.events import Ack
from unship.log.link import Link, Message
from unship.topics import key_of

APPEND_S: Final = 1.0
"""Longest wait for acks to be appended: they delay the load of its version."""

PAUSE_S: Final = 1.0
"""Pause after acks that could not be appended, in which commands are obeyed without waiting for them."""

UNSENT_MAX: Final = 1_000
"""Acks kept while the log is away; the oldest are evicted first, as only the newest of a replica counts."""


class Problems:
    """Count refusals and failed loads by code, and keep the detail of the newest problem; read by any thread."""

    def __init__(self) -> None:
        """Start with no problem."""
        self._counts: Counter[str] = Counter()
        self._newest = ""
        self._lost = ""

    @property
    def detail(self) -> str:
        """Return the newest problem, and a loss of the state as long as the process lives."""
        return "; ".join(each for each in (self._newest, self._lost) if each)

    def lose(self, code: str, detail: str) -> None:
        """Count a loss of the kept state, and keep naming it."""
        self._counts[code] += 1
        self._lost = detail

    def note(self, detail: str) -> None:
        """Keep the detail of a problem that is not counted here."""
        self._newest = detail

    def refuse(self, code: str, detail: str) -> None:
        """Count a refusal or a failed load."""
        self._counts[code] += 1
        self._newest = detail

    @property
    def refused(self) -> dict[str, int]:
        """Return the counts by code."""
        # Copying a dict is one step of the interpreter, so another thread cannot add a key in the middle of it.
        return dict(self._counts)


class AckQueue:
    """Append the acks of one replica in order; used by one thread."""

    def __init__(self, problems: Problems) -> None:
        """Make an empty queue without a log."""
        self._problems = problems
        self._link: Link | None = None
        self._unsent: deque[Message] = deque(maxlen=UNSENT_MAX)
        self._not_before = float("-inf")
        self.announced = False

    @property
    def connected(self) -> bool:
        """Return whether there is a log to append to."""
        return self._link is not None

    def connect(self, link: Link) -> None:
        """Append to this log from now on."""
        self._link = link

    def disconnect(self) -> None:
        """Keep further acks until the next log."""
        self._link = None

    def post(self, *acks: Ack) -> None:
        """Queue acks, and append what waits."""
        self.announced = self.announced or any(ack.stage == "serving" for ack in acks)
        self._unsent.extend(Message(encode_line(ack), key_of(ack)) for ack in acks)
        self.send()

    def send(self) -> None:
        """Append the acks that wait; a log that is away keeps them waiting, and delays nothing else."""
        begun = time.monotonic()  # noqa: TID251
        if self._link is None or not self._unsent or begun < self._not_before:
            return
        batches = {"acks": list(self._unsent)}
        try:
            while any(batches.values()):
                for refusal in self._link.append(batches, lambda: time.monotonic() > begun + APPEND_S):  # noqa: TID251
                    self._problems.note(f"acks: {refusal.reason}: {refusal.detail}")
        except Exception as error:  # noqa: BLE001 (a failing log must not stop the replica)
            self._problems.note(f"acks: {error}")
            self._not_before = time.monotonic() + PAUSE_S  # noqa: TID251
        self._unsent.clear()
        self._unsent.extend(batches.get("acks", ()))
