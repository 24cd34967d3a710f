"""Read the kept rows of the census survey (see SOURCE.md): people, whether they work, and what v41 answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

FEATURES = (
    "AGEP",
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
"""The survey's own names of the sixteen features, in the order of the file."""

REFERENCE_ROWS = 68_785
"""Rows of the file's reference part (2015). The analysis part (2016 to 2018) starts behind it."""


@dataclass(frozen=True, slots=True)
class CensusRows:
    """Hold rows column by column, in file order.

    Attributes:
        row: Index in the whole file, int32 (n,).
        features: Survey codes, uint8 (16, n), one line per name of `FEATURES`.
        truth: 1 if the person was at work, uint8 (n,).
        prediction: v41's answer, 0 or 1, uint8 (n,).
        probability: v41's probability of 1, float64 (n,), four decimals.
        year: Survey year, uint16 (n,).
    """

    row: NDArray[np.int32]
    features: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    probability: NDArray[np.float64]
    year: NDArray[np.uint16]

    def feature(self, name: str) -> NDArray[np.uint8]:
        """Return the codes of one feature, (n,); raises ValueError for a name that is not in `FEATURES`."""
        codes: NDArray[np.uint8] = self.features[FEATURES.index(name)]
        return codes

    def take(self, stretches: tuple[tuple[int, int], ...]) -> CensusRows:
        """Return the rows of these stretches (first row, row after the last) of the whole file, in this order.

        Raises:
            ValueError: A stretch names a row that is not kept.
        """
        found = [np.flatnonzero((self.row >= first) & (self.row < stop)) for first, stop in stretches]
        for (first, stop), positions in zip(stretches, found, strict=True):
            if len(positions) != stop - first:
                raise ValueError(f"rows {first} to {stop}: {len(positions)} of {stop - first} are kept")
        at = np.concatenate(found)
        return CensusRows(
            row=self.row[at],
            features=self.features[:, at],
            truth=self.truth[at],
            prediction=self.prediction[at],
            probability=self.probability[at],
            year=self.year[at],
        )


@cache
def load_rows() -> CensusRows:
    """Read all kept rows.

    Example:
        >>> rows = load_rows()
        >>> rows.features.shape[0] == len(FEATURES), int(rows.row[0])
        (True, 0)
    """
    with as_file(files(__package__).joinpath("rows.npz")) as path, np.load(path, allow_pickle=False) as kept:
        return CensusRows(
            row=np.concatenate([np.arange(first, stop, dtype=np.int32) for first, stop in kept["stretches"]]),
            features=kept["features"],
            truth=kept["truth"],
            prediction=kept["prediction"],
            probability=kept["probability"] / 10_000.0,
            year=kept["year"],
        )


def analysis_row(index: int) -> int:
    """Return the index in the whole file of a row of the analysis part."""
    return REFERENCE_ROWS + index
