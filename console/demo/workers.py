"""Start and stop the demo's processes in a private folder.

A process ends when its standard input does, so none outlives this one, however this one ends; and none is in the
foreground of the terminal, so that Ctrl-C reaches this one alone, which then closes the pipes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeVar

import msgspec
from msgspec import Struct

from console.demo.messages import Answers, Begin, Reported
from unship.errors import UnshipError
from unship.keys import TRUST_FILE, new_keys

REPLICAS = ("r-1", "r-2", "r-3")
END_S = 30.0
STDERR_TAIL_BYTES = 2_000

T = TypeVar("T", bound=Struct)


class DemoError(UnshipError):
    """Report a process of the demo that ended early or missed a deadline; run the demo again."""


class Worker:
    """Hold one process of the demo."""

    def __init__(self, name: str, module: str, folder: Path, begin: Begin) -> None:
        """Start a module of this package in a folder, which also gets its standard error."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"console.demo.{module}"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self.send(begin)

    def send(self, message: Struct) -> None:
        """Send one message; raise DemoError if the process has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(message) + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self.ended() from None

    def receive(self, kind: type[T]) -> T:
        """Wait for the next message; raise DemoError if the process ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.ended()
        message = msgspec.json.decode(line, type=kind)
        if isinstance(message, Answers | Reported) and (message.dropped or message.detail):
            raise DemoError(f"{self.name}: events did not reach the log: {message.dropped} {message.detail}")
        return message

    def check(self) -> None:
        """Raise DemoError if the process has ended."""
        if self.process.poll() is not None:
            raise self.ended()

    def ended(self) -> DemoError:
        """Return the error with the exit code and the end of standard error."""
        code = self.process.wait(END_S)
        stderr = self.log.read_bytes()[-STDERR_TAIL_BYTES:].decode(errors="replace").strip()
        return DemoError(
            f"{self.name}: ended with code {code} before the demo did; its standard error ends with:\n{stderr}"
        )

    def close(self) -> None:
        """Close the pipes and wait for the end of the process; kill it after `END_S` seconds."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    # Buffered data for a process that has ended.
                    continue
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Stage:
    """Name the demo's processes, the folder of its log and that of its keys."""

    log: Path
    keys: Path
    replicas: tuple[Worker, ...]
    labels: Worker
    monitor: Worker


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder that is closed to other users, and remove it at the end: it holds keys."""
    folder = Path(mkdtemp(prefix="unship-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stage(folder: Path, config: str, now: int) -> Iterator[Stage]:
    """Start the monitor under a configuration, the replicas and the label sources, and stop them.

    The monitor's folder holds the configuration and the keys. Each replica gets the address of the log and a copy of
    `trust.json` in a folder of its own: enough to verify commands, and nothing that could sign one.
    """
    home = folder / "monitor"
    home.mkdir(mode=0o700)
    (home / "unship.yaml").write_text(config, encoding="utf-8")
    new_keys(home / "unship-keys", audience="demo")
    log = folder / "log"
    where = f"embedded:{log}"
    with ExitStack() as started:

        def start(name: str, module: str, place: Path, begin: Begin) -> Worker:
            worker = Worker(name, module, place, begin)
            started.callback(worker.close)
            return worker

        monitor = start("monitor", "monitor", home, Begin(now, where))
        labels = start("labels", "labels", folder / "labels", Begin(now, where))
        replicas = []
        for name in REPLICAS:
            place = folder / name
            place.mkdir(mode=0o700)
            trust = shutil.copy(home / "unship-keys" / TRUST_FILE, place / TRUST_FILE)
            replicas.append(start(name, "replica", place, Begin(now, where, str(trust), name)))
        yield Stage(log, home / "unship-keys", tuple(replicas), labels, monitor)
