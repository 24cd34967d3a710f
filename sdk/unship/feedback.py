"""Report truths: from any process, at any later time, to the log that the fleet writes to.

A source of labels is often a job that has a million of them at once. Unlike a serving process it can wait, and a label
dropped is an outcome lost; so where the queue is full a call waits for room, and drops only after that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from unship.emitter import BAD_ARGUMENT, Emitter, EmitterStats
from unship.events import Feedback as FeedbackEvent
from unship.log.address import checked_log
from unship.log.link import wall_ms
from unship.sending.sendable import plain
from unship.system.forking import after_fork_in_child


class Feedback:
    """Send what turned out to be true for predictions, by their ids.

    The thread starts with the first event; what waits is sent when the object is closed or the process ends.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, Feedback(f"embedded:{folder}", source="chargebacks") as feedback:
        ...     feedback.truth("p-1", 1)
        ...     feedback.engagement("p-2", 0.3)
        ...     feedback.flush(), feedback.stats.sent
        (True, 2)
    """

    def __init__(
        self,
        log: str | None = None,
        source: str = "default",
        model: str | None = None,
        *,
        queue: int = 10_000,
        queue_bytes: int | None = None,
        pack: bool = False,
        wait_s: float = 30.0,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """Describe the source.

        Args:
            log: `kafka://HOST:PORT[,HOST:PORT]` or `embedded:DIR`; without it, the environment's UNSHIP_LOG.
            source: Where the truths come from; one prediction may get one truth from each source.
            model: The model of the predictions, where ids are not unique among models.
            queue: Most events that wait.
            queue_bytes: Most memory that they take, roughly, in bytes; see `unship.Fleet`.
            pack: Put up to 64 events into one record, as `unship.Fleet` does.
            wait_s: How long a call waits for room in the queue, in seconds; then the event is dropped and counted.
            now_ms: The clock, in milliseconds since the epoch; see `unship.Fleet`.

        Raises:
            ConfigurationError: `log` names no log.
        """
        self._log = checked_log(log or os.environ.get("UNSHIP_LOG"))
        self._source = source
        self._model = model
        self._queue = queue
        self._queue_bytes = queue_bytes
        self._pack = pack
        self._wait_s = wait_s
        self._now_ms = now_ms
        self._begin()
        after_fork_in_child(self._after_fork)

    def _begin(self) -> None:
        """Take nothing that belongs to another process: called once more after a fork."""
        self._emitter = Emitter(
            self._log, queue=self._queue, queue_bytes=self._queue_bytes, pack=self._pack, now_ms=self._now_ms
        )
        self._starting = threading.Lock()
        self._started = False

    def truth(
        self,
        id: str,
        truth: Any,
        *,
        source: str | None = None,
        row: int = 0,
        target: str = "",
        ts: int | None = None,
    ) -> None:
        """Report what turned out to be true for a prediction; never raises.

        Args:
            id: The id of the prediction.
            truth: Bool, number, text, or a list of them for rankings; arrays and scalars of numpy are converted.
            source: Another source than that of the object.
            row: The row of the batched request.
            target: Which of several targets.
            ts: When it became known, in milliseconds since the epoch; now if absent.
        """
        self._put(id=id, truth=truth, engagement=None, source=source, row=row, target=target, ts=ts)

    def engagement(
        self,
        id: str,
        engagement: float,
        *,
        source: str | None = None,
        row: int = 0,
        target: str = "",
        ts: int | None = None,
    ) -> None:
        """Report the engagement with an answer, from 0 (none) to 1, where no truth will be known; never raises."""
        self._put(id=id, truth=None, engagement=engagement, source=source, row=row, target=target, ts=ts)

    def retract(
        self, id: str, *, source: str | None = None, row: int = 0, target: str = "", ts: int | None = None
    ) -> None:
        """Take back what a source reported for a prediction, as for a chargeback that was reversed; never raises.

        It is heeded for models with `labels.on_conflict: last`, until the label has been judged.
        """
        self._put(id=id, truth=None, engagement=None, source=source, row=row, target=target, ts=ts, retract=True)

    def _put(self, *, truth: Any, engagement: Any, source: str | None, ts: int | None, **fields: Any) -> None:
        try:
            if not self._started:
                self._start()
            event = FeedbackEvent(
                truth=plain(truth),
                engagement=engagement,
                model=self._model,
                source=self._source if source is None else source,
                ts=self._now_ms() if ts is None else ts,
                **fields,
            )
            self._emitter.wait_for_room(event, self._wait_s)
            self._emitter.put(event)
        except Exception as error:  # noqa: BLE001 (the promise is not to raise)
            self._emitter.drop(BAD_ARGUMENT, f"feedback: {type(error).__name__}: {error}")

    def _start(self) -> None:
        with self._starting:
            self._emitter.start()
            self._started = True

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until every event so far was written or dropped; False when time is up first."""
        return self._emitter.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits for at most `timeout_s` seconds; what is left then counts as dropped."""
        self._emitter.close(timeout_s)

    @property
    def stats(self) -> EmitterStats:
        """Return the counts of now."""
        return self._emitter.stats

    def _after_fork(self) -> None:
        self._emitter.forget()
        self._begin()

    def __enter__(self) -> Feedback:
        """Return the source itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the source."""
        self.close()
