"""Record the requests while all was well, across versions: how often each slice was asked, and how well it went."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Bools, Floats, Ints
from detectors.rows.bank import BASELINE_CAP, take_out
from detectors.rows.types import Entries, part_of, sums_by


class RequestMix(msgspec.Struct):
    """Hold sums of shape (1 + 2 x losses, streams): outcomes; then for each loss counts, and sums.

    The outcomes fade all together, so that their shares stay those of the newest; counts and sums of losses fade by
    stream.
    """

    sums: NDArray[np.float64]

    @property
    def losses(self) -> int:
        """Return the number of losses."""
        return len(self.sums) // 2

    def fit(self, streams: int) -> None:
        """Make room for streams that have appeared."""
        missing = streams - self.sums.shape[1]
        if missing > 0:
            self.sums = np.pad(self.sums, ((0, 0), (0, missing)))

    def add(self, sums: Floats) -> None:
        """Add what another version recorded."""
        self.sums[:, : sums.shape[1]] += sums

    def count(self, entries: Entries, counted: Bools | None, begins: Ints) -> None:
        """Count outcomes, the parts that begin at `begins` one after the other; `counted` masks those that count."""
        row, place = entries.known()
        losses, size = self.losses, self.sums.shape[1]
        if begins.size > 1:
            row = row + part_of(begins, entries.source.size)[place] * size
        shape = begins.size, size
        width = begins.size * size
        whole = np.bincount(row, minlength=width)
        outcomes = whole if counted is None else np.bincount(row[counted[place]], minlength=width)
        columns = sums_by(entries.losses[:, place], row, width, whole)
        for added in np.stack([outcomes, *columns], axis=0).reshape(-1, *shape).transpose(1, 0, 2):
            self.sums += added
            if self.sums[0, 0] > BASELINE_CAP:
                self.sums[0] *= BASELINE_CAP / self.sums[0, 0]
            counts = self.sums[1 : 1 + losses]
            if counts.max() > BASELINE_CAP:
                fade = BASELINE_CAP / np.maximum(counts, BASELINE_CAP)
                counts *= fade
                self.sums[1 + losses :] *= fade

    def forget(self, window: Floats) -> None:
        """Take the outcomes of a window, (2 x losses, streams, sources), out again."""
        recent, losses = window.sum(axis=2), self.losses
        for loss in range(losses):
            take_out(self.sums[1 + loss], self.sums[1 + losses + loss], recent[loss], recent[losses + loss])
        # The shares fade all together, with the overall count.
        faded = self.sums[0, 0] >= BASELINE_CAP
        share = -np.expm1(-recent[0, 0] / BASELINE_CAP) * BASELINE_CAP / max(recent[0, 0], 1.0) if faded else 1.0
        self.sums[0] = np.maximum(self.sums[0] - recent[0] * share, 0.0)

    def share(self, stream: int) -> float:
        """Return the share of a slice in the requests."""
        return float(self.sums[0, stream]) / max(float(self.sums[0, 0]), 1.0)

    def usual(self, loss: int, stream: int) -> tuple[float, float]:
        """Return the mean loss and the number of outcomes of a slice."""
        n, k = self.sums[1 + loss, stream], self.sums[1 + self.losses + loss, stream]
        return float((k + 0.5) / (n + 1.0)), float(n)


def new_request_mix(losses: int, streams: int) -> RequestMix:
    """Return a record without requests.

    >>> new_request_mix(1, 2).usual(0, 1)
    (0.5, 0.0)
    """
    return RequestMix(np.zeros((1 + 2 * losses, streams)))
