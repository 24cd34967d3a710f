"""Switch the version of a server that is not Python: by a file, or by a program."""

import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

EXEC_S: Final = 60.0


class FileSwitch:
    """Switch by replacing a file that holds the version and a line end."""

    def __init__(self, path: Path) -> None:
        """Name the file, without touching it."""
        self._path = path

    def __call__(self, version: str) -> None:
        """Write the version; whoever reads the file sees the old one or the new one, never a part."""
        _check_version(version)
        descriptor, beside = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with open(descriptor, "wb") as file:
                file.write(version.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            # The application may run as another user.
            os.chmod(beside, 0o644)
            os.replace(beside, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(beside)
            raise


class ExecSwitch:
    """Switch by a command, without a shell: `{version}` in its words is replaced by the version."""

    def __init__(self, command: str, timeout_s: float = EXEC_S) -> None:
        """Split the command into words as a shell would.

        Raises:
            ValueError: A quotation mark is missing, or there is no word.
        """
        self._words = shlex.split(command)
        if not self._words:
            raise ValueError("the command is empty")
        self._timeout_s = timeout_s
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self, version: str) -> None:
        """Run the command; raise if it cannot be run, ends with another code than 0, or takes too long."""
        _check_version(version)
        words = [word.replace("{version}", version) for word in self._words]
        # What it prints goes to the sidecar's standard error: standard output is for data.
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True) as process:
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
