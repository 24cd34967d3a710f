"""Keep a replica's fence on disk, so that no restart makes it obey an older command than one it obeyed before.

The file is replaced as a whole, and a kill at any point leaves the old one or the new one. A lock file next to it keeps
two processes of one name from writing in turns: the slower one would put an older epoch back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from unship.errors import ConfigurationError
from unship.replica.fence import STATE_BYTES_MAX
from unship.system.files import replace_file

SUFFIX: Final = ".state"
NAME_BYTES_MAX: Final = 200
LOCK_PAUSE_S: Final = 0.05


def epoch_path(folder: Path, model: str, replica: str) -> Path:
    """Return the file of a replica in a folder: `<folder>/<model>/<replica>.state`, whatever characters names hold.

    Example:
        >>> epoch_path(Path("replicas"), "fraud", "pod/7").as_posix()
        'replicas/fraud/pod%2F7.state'
    """
    return folder / _file_name(model) / f"{_file_name(replica)}{SUFFIX}"


def _file_name(name: str) -> str:
    quoted = quote(name, safe="")
    if len(quoted) > NAME_BYTES_MAX:
        return hashlib.sha256(name.encode()).hexdigest()
    # `.` and `..` are names of folders; nothing else that is quoted can be.
    return quoted.replace(".", "%2E") if set(quoted) == {"."} else quoted


class EpochFile:
    """Read and replace one file; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Name the file, without touching it."""
        self.path = path
        self._lock: int | None = None
        self._marked = False

    def acquire(self, timeout_s: float = 5.0) -> None:
        """Take the name for this process, for as long as it lives or until `release`.

        Raises:
            ConfigurationError: Another process has it, and keeps it for `timeout_s` seconds.
            OSError: The folder cannot be written.
        """
        if self._lock is not None:
            return
        _make_folders(self.path.parent)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + timeout_s  # noqa: TID251
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # A process that is being replaced by this one may need a moment to end.
                    if time.monotonic() >= deadline:  # noqa: TID251
                        raise ConfigurationError(
                            f"replica: another process has {self.path} for longer than {timeout_s:g} s; "
                            "give each process of a model a replica name of its own"
                        ) from None
                time.sleep(LOCK_PAUSE_S)  # noqa: TID251
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        self._marked = os.fstat(descriptor).st_size > 0

    @property
    def was_written(self) -> bool:
        """Return whether the file was ever written, by the mark next to it; to be asked after `acquire`."""
        return self._marked

    def release(self) -> None:
        """Release the name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> bytes | None:
        """Return the content, None if there is no file; what cannot be read counts as damaged, as `b""` does."""
        try:
            with self.path.open("rb") as file:
                return file.read(STATE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        """Replace the content; when this returns, it survives a power failure.

        Raises:
            ConfigurationError: Another process has the name.
            OSError: The disk refused; the old content stays.
        """
        self.acquire(timeout_s=0.0)
        _make_folders(self.path.parent)
        replace_file(self.path, data, 0o600)
        if not self._marked and self._lock is not None:
            # In the file of the lock, which stays: where it is empty there was no state that could be lost.
            os.pwrite(self._lock, b"written\n", 0)
            self._marked = True


def _make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, each closed to others: they may hold the log with its events."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir(mode=0o700)
