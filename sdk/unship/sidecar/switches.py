"""Switch the version of a server that is not Python: by a file, or by a program."""

from __future__ import annotations

import os
import re
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


PLACE: Final = "{version}"

INTERPRETERS: Final = re.compile(
    r"(?:ba|da|k|z|a|c|tc|fi)?sh|busybox|python[\d.]*|perl[\d.]*|ruby[\d.]*|node|deno|bun|php[\d.]*|lua[\d.]*|tclsh[\d.]*|pwsh|su"
)
"""Programs that take code as the argument of an option."""

JOINERS: Final = frozenset(("eval", "ssh", "watch", "parallel"))
"""Programs that join their arguments into one string, for a shell to run."""

LAUNCHERS: Final = frozenset(("command", "doas", "env", "exec", "nice", "nohup", "setsid", "sudo", "time", "xargs"))
"""Programs that run the program which their first argument names."""

CODE_OPTION: Final = re.compile(r"-[A-Za-z]*[cerEp]|--(?:eval|command|print|exec|run)")


class ExecSwitch:
    """Switch by a command, without a shell: the word `{version}` among its arguments is replaced by the version.

    The version is a name out of an event, so it must never be read as code. Within a word it would be, where the word
    is a string for a shell.
    """

    def __init__(self, command: str, timeout_s: float = EXEC_S) -> None:
        """Split the command into arguments as a shell would.

        Raises:
            ValueError: A quotation mark is missing, it is empty, or `{version}` is no word of its own.
        """
        self._arguments = shlex.split(command)
        if not self._arguments:
            raise ValueError("the command is empty")
        _check_place(self._arguments)
        self._timeout_s = timeout_s
        self._running: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def __call__(self, version: str) -> None:
        """Run the command; raise if it cannot be run, ends with another code than 0, or takes too long."""
        _check_version(version)
        arguments = [version if each == PLACE else each for each in self._arguments]
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


def _check_place(arguments: list[str]) -> None:
    """Refuse a command that would run a part of the version as code."""
    right = f"""write it as a word of its own: reload {PLACE}, or sh -c 'reload "$1"' sh {PLACE}"""
    before = [os.path.basename(each) for each in arguments]
    for index, each in enumerate(arguments):
        if PLACE not in each:
            continue
        if each != PLACE:
            raise ValueError(
                f"{PLACE} is a part of a word, where a shell would run what a version's name holds; {right}"
            )
        if index == 0:
            raise ValueError(f"{PLACE} is the program, so a version's name would choose what is run; {right}")
        last = before[index - 1]
        interpreted = any(map(INTERPRETERS.fullmatch, before[: index - 1]))
        # After `sh -c SCRIPT`, the next word is only a name for the script's own use.
        program = not interpreted and (last in LAUNCHERS or INTERPRETERS.fullmatch(last))
        if program or (interpreted and CODE_OPTION.fullmatch(last)) or not JOINERS.isdisjoint(before[:index]):
            raise ValueError(f"{PLACE} is code here, so what a version's name holds would be run; {right}")


def _check_version(version: str) -> None:
    """Refuse names that a file or a command could take for something else than a name."""
    if version.startswith("-") or not version.isprintable():
        raise ValueError("a version that begins with a dash or holds control characters is not passed on")
