"""Rows in mapped files keep what was written, however little of them stays in memory."""

from __future__ import annotations

import mmap
import resource
from pathlib import Path

import numpy as np
import pytest

from streams.cache import residency
from streams.cache.residency import Residency
from streams.cache.row_files import RowFiles
from streams.window.stored_rows import DamagedRows, Rows, checksum_of_labels, checksum_of_predictions, new_rows

SECRET = b"secret"


def some_rows() -> Rows:
    rows = new_rows(5_000)
    numbers = np.arange(rows.size)
    rows["high"], rows["position"], rows["at"], rows["label_position"] = numbers * 7, numbers, numbers * 3, -1
    return rows


@pytest.mark.parametrize("statm", ["/proc/self/statm", "/proc/self/nothing"])
def test_rows_keep_what_was_written_when_they_leave_memory(
    statm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residency, "_STATM", statm)
    files, rows = RowFiles(tmp_path, SECRET, Residency(0)), some_rows()
    kept = files.keep(rows, rows.size)
    assert kept is not None
    kept.rows["label_at"][::7] = rows["label_at"][::7] = 5
    files.touched(1)
    assert kept.rows.tobytes() == rows.tobytes()
    files.close()
    assert RowFiles(tmp_path, SECRET, Residency(0)).kept(kept.name).rows.tobytes() == rows.tobytes()


def test_rows_of_another_secret_are_refused(tmp_path: Path) -> None:
    kept = RowFiles(tmp_path, SECRET, Residency(0)).keep(some_rows(), 5)
    assert kept is not None
    with pytest.raises(DamagedRows, match="not written by this version under this secret"):
        RowFiles(tmp_path, b"other", Residency(0)).kept(kept.name)


def test_rows_stay_in_memory_where_the_disk_has_no_room(tmp_path: Path) -> None:
    files, (soft, hard) = RowFiles(tmp_path, SECRET, Residency(0)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (mmap.PAGESIZE, hard))
    try:
        assert files.keep(some_rows(), 5) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert files.keep(some_rows(), 5) is not None


def test_checksum_of_a_range_is_the_sum_of_those_of_its_parts() -> None:
    rows = some_rows()
    whole = checksum_of_predictions(rows, 0, rows.size)
    parts = [checksum_of_predictions(rows, first, first + 1_000) for first in range(0, rows.size, 1_000)]
    assert sum(parts) % 2**64 == whole % 2**64


@pytest.mark.parametrize("column", ["high", "low", "position", "at", "output", "score", "cell", "kind"])
def test_checksum_changes_with_each_column_and_with_the_order_of_rows(column: str) -> None:
    rows = some_rows()
    before = checksum_of_predictions(rows, 0, rows.size)
    rows[column][17] += 1
    assert checksum_of_predictions(rows, 0, rows.size) != before
    swapped = some_rows()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert checksum_of_predictions(swapped, 0, rows.size) != before


@pytest.mark.parametrize("column", ["label_position", "label_at", "truth", "source", "truth_kind", "named"])
def test_checksum_of_labels_changes_with_each_of_their_columns_alone(column: str) -> None:
    rows, labelled = some_rows(), np.array([3, 17])
    before = checksum_of_labels(rows, labelled), checksum_of_predictions(rows, 0, rows.size)
    rows[column][17] = 1
    assert checksum_of_labels(rows, labelled) != before[0]
    assert checksum_of_predictions(rows, 0, rows.size) == before[1]
