"""How much of mapped files is in memory: all of the process together, as far as the system shows it."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import Final
from weakref import WeakSet, finalize

_STATM: Final = "/proc/self/statm"
_SHARED: Final = 2
"""The field of `statm` with the pages of mapped files that are in memory."""


class Residency:
    """Lets the system have pages of mapped files back where more of them are in memory than a limit.

    What a read brings into memory besides its own page is the system's choice, so it is measured where that is
    possible, and estimated elsewhere. The pages stay in the system's cache as long as it has room.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._maps: WeakSet[mmap.mmap] = WeakSet()
        self._estimate = 0
        self._statm: int | None = None
        with suppress(OSError):
            self._statm = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)
            finalize(self, os.close, self._statm)
        # Files that are in memory anyway, such as those of programs.
        self._others = self._shared()

    def add(self, mapped: mmap.mmap) -> None:
        """Note a mapped file; it is forgotten with its last array."""
        self._maps.add(mapped)

    def brought(self, size: int) -> None:
        """Note that so many bytes were read or written, and let the system have everything back if it is too much."""
        self._estimate += size
        if (self._shared() - self._others if self._statm is not None else self._estimate) <= self._bytes_max:
            return
        for mapped in list(self._maps):
            mapped.madvise(mmap.MADV_DONTNEED)
        self._estimate, self._others = 0, self._shared()

    def _shared(self) -> int:
        """Return how many bytes of mapped files are in memory."""
        if self._statm is None:
            return 0
        return int(os.pread(self._statm, 256, 0).split()[_SHARED]) * mmap.PAGESIZE
