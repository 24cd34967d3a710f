"""Send alerts to a command of the operator: JSON on its standard input, one run for each alert.

A thread of its own runs the command, so that a command that hangs, fails or is missing holds up nothing. Nothing of an
event becomes an argument. The command gets none of the monitor's environment but what names a place or a language, and
what the operator has configured: keys and passwords that the monitor was started with stay in the monitor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from actions.alerts import Alert

WAITING_MAX: Final = 1_000
"""Alerts that wait; beyond, the oldest is dropped and reported."""

SENT_MAX: Final = 1_000
"""Ids of decisions that are remembered: a journal may hold one twice."""

PAUSES_S: Final = (1.0, 5.0, 25.0)
"""Before each further try."""

PASSED_ON: Final = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""Variables of the environment that the command gets."""


class CommandSink:
    """Run a command for each alert; `put` never waits."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        report: Callable[[str], None],
        timeout_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """Start the thread.

        Args:
            arguments: The command, without a shell.
            folder: Where it runs; a command that is a relative path begins here.
            report: Gets a sentence about each alert that was not sent.
            timeout_s: How long one run may take.
            environment: Further variables of its environment.
            pauses_s: The pauses before each further try.
        """
        self._arguments, self._folder, self._report, self._timeout_s = list(arguments), folder, report, timeout_s
        self._environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._environment |= environment or {}
        self._pauses_s = tuple(pauses_s)
        self._waiting: deque[Alert] = deque()
        self._sent: deque[str] = deque(maxlen=SENT_MAX)
        self._changed = threading.Condition()
        self._stopping = False
        self._running: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="unship-alerts", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> None:
        """Queue an alert, unless it was queued before."""
        dropped = None
        with self._changed:
            if self._stopping or alert.decision in self._sent:
                return
            self._sent.append(alert.decision)
            self._waiting.append(alert)
            if len(self._waiting) > WAITING_MAX:
                dropped = self._waiting.popleft()
            self._changed.notify_all()
        if dropped is not None:
            self._report(f"alert {dropped.decision} was dropped: {WAITING_MAX} wait for {self._arguments[0]!r}")

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what waits for at most so long, then end the command that runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and self._running is None, timeout_s)
            self._stopping = True
            left = len(self._waiting)
            self._changed.notify_all()
            self._kill()
        self._thread.join(timeout_s)
        if left:
            self._report(f"{left} alerts were not sent to {self._arguments[0]!r} before the end")

    def _run(self) -> None:
        while (alert := self._next()) is not None:
            problem = self._try(alert)
            for pause_s in self._pauses_s:
                if problem is None or self._wait(pause_s):
                    break
                problem = self._try(alert)
            if problem is not None:
                self._report(f"alert {alert.decision} was not sent: {self._arguments[0]!r} {problem}")
            with self._changed:
                self._waiting.popleft() if self._waiting and self._waiting[0] is alert else None
                self._changed.notify_all()

    def _next(self) -> Alert | None:
        """Return the alert that waits longest, which stays in the queue until it is done; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or bool(self._waiting))
            return None if self._stopping else self._waiting[0]

    def _wait(self, pause_s: float) -> bool:
        """Pause; return whether to stop."""
        with self._changed:
            return self._changed.wait_for(lambda: self._stopping, pause_s)

    def _try(self, alert: Alert) -> str | None:
        """Run the command once; return what went wrong."""
        try:
            # What it prints goes nowhere: a full pipe would hold it up.
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                env=self._environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"cannot be run: {error}"
        with self._changed:
            self._running = process
            if self._stopping:
                self._kill()
        try:
            process.communicate(msgspec.json.encode(alert) + b"\n", self._timeout_s)
        except subprocess.TimeoutExpired:
            self._kill()
            process.wait()
            return f"took longer than {self._timeout_s:g} s"
        finally:
            with self._changed:
                self._running = None
                self._changed.notify_all()
        return None if process.returncode == 0 else f"ended with code {process.returncode}"

    def _kill(self) -> None:
        """End the command that runs, with everything that it started."""
        if self._running is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running.pid, signal.SIGKILL)
