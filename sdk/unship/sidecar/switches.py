"""Switch the version of a server that is not Python: by a file, or by a program."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from unship.system.files import replace_file

EXEC_S: Final = 60.0


class FileSwitch:
    """Switch by replacing a file that holds the version and a line end."""

    def __init__(self, path: Path) -> None:
        """Name the file, without touching it."""
        self._path = path

    def __call__(self, version: str) -> None:
        """Write the version; readers of the file see the old one or the new one, never a part."""
        _check_version(version)
        # The application may run as another user.
        replace_file(self._path, version.encode() + b"\n", 0o644)


class ExecSwitch:
    """Switch by a command, without a shell: `{version}` in its arguments is replaced by the version."""

    def __init__(self, command: str, timeout_s: float = EXEC_S) -> None:
        """Split the command into arguments as a shell would.

        Raises:
            ValueError: A quotation mark is missing, or it is empty.
        """
        self._arguments = shlex.split(command)
        if not self._arguments:
            raise ValueError("the command is empty")
        self._timeout_s = timeout_s
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self, version: str) -> None:
        """Run the command; raise if it cannot be run, ends with another code than 0, or takes too long."""
        _check_version(version)
        arguments = [each.replace("{version}", version) for each in self._arguments]
        # What it prints goes to the sidecar's standard error: standard output is for data.
        with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True) as process:
            self._running = process
            if self._stopped:
                # Asked for while the command was being started, when there was nothing to kill yet.
                self._kill()
            try:
                code = process.wait(self._timeout_s)
            except subprocess.TimeoutExpired:
                self._kill()
                raise RuntimeError(f"the command took longer than {self._timeout_s:g} s") from None
            finally:
                self._running = None
        if code:
            raise RuntimeError(f"the command ended with code {code}")

    def stop(self) -> None:
        """Kill the command that runs, with everything that it started, and each that would still be started."""
        self._stopped = True
        self._kill()

    def _kill(self) -> None:
        process = self._running
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _check_version(version: str) -> None:
    """Refuse names that a file or a command could take for something else than a name."""
    if version.startswith("-") or not version.isprintable():
        raise ValueError("a version that begins with a dash or holds control characters is not passed on")
