"""Send alerts to a command of the operator: JSON on its standard input, one run for each alert.

Nothing of an event becomes an argument. The command gets none of the monitor's environment but what names a place or a
language, and what the operator has configured: keys and passwords that the monitor was started with stay there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from actions.adapters.sink import Problem
from actions.incidents import Alert, alert_bytes

PASSED_ON: Final = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""Variables of the environment that the command gets."""


class CommandSink:
    """Run a command for each alert."""

    repeat_ms: int | None = None

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        timeout_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare to run a command.

        Args:
            arguments: The command, without a shell.
            folder: Where it runs; a command that is a relative path begins here.
            timeout_s: How long one run may take.
            environment: Further variables of its environment.
        """
        self.name = f"command {arguments[0]!r}"
        self._arguments, self._folder, self._timeout_s = list(arguments), folder, timeout_s
        self._environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self._environment |= environment or {}
        self._running: subprocess.Popen[bytes] | None = None

    async def send(self, alert: Alert, now_ms: int) -> Problem | None:
        """Run the command once; one that fails is tried again, because what it calls may be away."""
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
            return Problem(f"cannot be run: {error}")
        self._running = process
        talking = asyncio.create_task(asyncio.to_thread(process.communicate, alert_bytes(alert) + b"\n"))
        try:
            # Shielded, because a thread cannot be cancelled: it ends once the command was ended.
            await asyncio.wait_for(asyncio.shield(talking), self._timeout_s)
        except TimeoutError:
            self._end()
            await talking
            return Problem(f"took longer than {self._timeout_s:g} s")
        finally:
            self._end()
            self._running = None
        return None if process.returncode == 0 else Problem(f"ended with code {process.returncode}")

    async def close(self) -> None:
        """End the command that runs, with everything that it started."""
        self._end()

    def _end(self) -> None:
        if self._running is not None and self._running.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._running.pid, signal.SIGKILL)
