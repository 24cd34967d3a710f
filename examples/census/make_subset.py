"""Cut the rows that the recordings need out of the whole survey file; needed once, kept to show where they come from.

    python examples/census/make_subset.py employment_ma.csv.gz console/census/rows.npz

`console/census/SOURCE.md` describes the file, its origin and its licence.
"""

from __future__ import annotations

import csv
import gzip
import sys
from pathlib import Path

import numpy as np

from console.census.rows import FEATURES, REFERENCE_ROWS

# First row and the row after the last one. The first stretch is of the reference part (2015): v42 is trained and
# tested on it. The other two are of the analysis part: late 2016, and the turn from 2017 to 2018.
STRETCHES = (
    (0, 50_000),
    (REFERENCE_ROWS + 20_000, REFERENCE_ROWS + 69_125),
    (REFERENCE_ROWS + 129_000, REFERENCE_ROWS + 158_000),
)


def main(source: Path, target: Path) -> None:
    """Read the survey file and write the kept rows, column by column."""
    with gzip.open(source, "rt", encoding="ascii", newline="") as text:
        rows = list(csv.DictReader(text))
    kept = [row for first, stop in STRETCHES for row in rows[first:stop]]
    assert sum(row["split"] == "reference" for row in rows[:REFERENCE_ROWS]) == REFERENCE_ROWS, "the parts have moved"

    # The file has four decimals: integers of ten-thousandths keep the probability exactly.
    scaled = np.array([float(row["predicted_probability"]) for row in kept]) * 10_000.0
    probability = np.rint(scaled).astype(np.uint16)
    assert np.abs(scaled - probability).max() < 1e-6, "a probability has more than four decimals"
    np.savez_compressed(
        target,
        stretches=np.array(STRETCHES, dtype=np.int32),
        features=np.array([[int(row[name]) for row in kept] for name in FEATURES], dtype=np.uint8),
        truth=np.array([int(row["employed"]) for row in kept], dtype=np.uint8),
        prediction=np.array([int(row["prediction"]) for row in kept], dtype=np.uint8),
        probability=probability,
        year=np.array([int(row["year"]) for row in kept], dtype=np.uint16),
    )
    print(f"{len(kept)} rows of {len(rows)}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_subset.py SURVEY.csv.gz ROWS.npz")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
