"""Cut the departures of one airport out of the flights of 2013, with the answers of a model trained on their January.

    python examples/flights/make_subset.py flights.csv.zip examples/flights/rows.npz

Needed once, kept to show where the rows come from: `examples/flights/SOURCE.md` describes the file and its licence.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AIRPORT = "LGA"
LATE_MINUTES = 15
TAXI_MINUTES = 30
NEVER = 2**15 - 1
PENALTY = 3.0
STEPS = 30

Floats = NDArray[np.float64]


def main(source: Path, target: Path) -> None:
    """Read the file of all flights and write the kept rows, column by column, in order of scheduled departure."""
    with zipfile.ZipFile(source) as archive, archive.open("flights.csv") as raw:
        rows = [row for row in csv.DictReader(io.TextIOWrapper(raw, "ascii")) if row["origin"] == AIRPORT]
    hour = np.array([int(datetime.fromisoformat(row["time_hour"]).timestamp()) // 60 for row in rows])
    scheduled = hour + np.array([int(row["minute"]) for row in rows])
    order = scheduled.argsort(kind="stable")
    rows, scheduled = [rows[i] for i in order], scheduled[order]
    carriers, carrier = np.unique([row["carrier"] for row in rows], return_inverse=True)
    airports, destination = np.unique([row["dest"] for row in rows], return_inverse=True)
    landed = np.array([row["arr_delay"] not in ("", "NA") for row in rows])
    late = np.array([float(row["arr_delay"]) if known else 0.0 for row, known in zip(rows, landed, strict=True)])
    known_after = np.array(
        [
            float(row["dep_delay"]) + float(row["air_time"]) + TAXI_MINUTES if known else NEVER
            for row, known in zip(rows, landed, strict=True)
        ]
    )
    features = np.column_stack(
        [
            np.eye(len(carriers))[carrier],
            np.eye(len(airports))[destination],
            np.eye(24)[np.array([int(row["hour"]) for row in rows])],
            np.ones(len(rows)),
        ]
    )
    january = np.array([row["month"] == "1" for row in rows])
    weights = fit(features[january & landed], late[january & landed] > LATE_MINUTES)
    np.savez_compressed(
        target,
        scheduled=np.diff(scheduled, prepend=0).astype(np.int32),
        known_after=np.clip(known_after, 1, NEVER).astype(np.int16),
        late=np.where(landed, late > LATE_MINUTES, 0).astype(np.uint8),
        score=np.rint(probability(features, weights) * 200).astype(np.uint8),
        carrier=carrier.astype(np.uint8),
        carriers=carriers,
        january=np.int32(january.sum()),
    )
    print(f"{len(rows):,} rows, {target.stat().st_size:,} bytes, never {1 - landed.mean():.4f}")


def probability(features: Floats, weights: Floats) -> Floats:
    """Return the probability of each row (n, k) that the flight is late."""
    return 1.0 / (1.0 + np.exp(-features @ weights))


def fit(features: Floats, late: NDArray[np.bool_]) -> Floats:
    """Return the weights (k,) of a logistic regression with a ridge penalty, by Newton's method."""
    weights = np.zeros(features.shape[1])
    ridge = PENALTY * np.eye(weights.size)
    for _ in range(STEPS):
        p = probability(features, weights)
        slope = features.T @ (late - p) - PENALTY * weights
        weights += np.linalg.solve((features.T * (p * (1 - p))) @ features + ridge, slope)
    return weights


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_subset.py flights.csv.zip ROWS.npz")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
