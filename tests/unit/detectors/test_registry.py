"""Detectors are made and restored by name, from a closed table."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

import detectors
from detectors import registry
from detectors.snapshots import DIGEST_SIZE, FORMAT, MAGIC, Envelope, seal, unseal
from streams.config.sections import DETECTORS_BY_DEFAULT
from unship.errors import SnapshotError


class Nothing(msgspec.Struct):
    """Hold nothing."""


def test_names_are_pinned() -> None:
    errors = ("ddm", "eddm", "fhddm", "hddm_a", "hddm_w")
    assert detectors.names() == ("e_detector", "adwin", "page_hinkley", *errors, "kswin", "cusum")


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"'adwn'.*e_detector, adwin, page_hinkley, ddm"):
        detectors.create("adwn")


@pytest.mark.parametrize("name", detectors.names())
def test_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="sensitivity"):
        detectors.create(name, sensitivity=3)


@pytest.mark.parametrize("name", detectors.names())
def test_created_detector_says_its_name_and_what_it_accepts(name: str) -> None:
    detector = detectors.create(name)
    assert detector.name == name
    assert detector.accepts == ("binary" if name in {"ddm", "eddm", "fhddm", "hddm_a", "hddm_w"} else "unit")


@pytest.mark.parametrize("name", detectors.names())
def test_empty_batch_raises_no_alarm_and_changes_nothing(name: str) -> None:
    detector = detectors.create(name)
    before = detector.snapshot()
    alarms = detector.update_many([])
    assert alarms.shape == (0,)
    assert alarms.dtype.kind == "i"
    assert detector.snapshot() == before


@pytest.mark.parametrize("name", detectors.names())
def test_losses_in_two_dimensions_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"one dimension, was shape \(2, 2\)"):
        detectors.create(name).update_many([[0.0, 1.0], [1.0, 0.0]])


@pytest.mark.parametrize("name", detectors.names())
def test_booleans_and_integers_are_losses(name: str) -> None:
    wrong = np.random.default_rng(4).random(3_000) < np.repeat([0.1, 0.6], [2_000, 1_000])
    expected = detectors.create(name).update_many(wrong.astype(float)).tolist()
    assert detectors.create(name).update_many(wrong).tolist() == expected
    assert detectors.create(name).update_many(wrong.astype(int).tolist()).tolist() == expected
    assert expected


def test_snapshot_of_a_detector_not_in_the_table_is_refused() -> None:
    with pytest.raises(SnapshotError, match="unknown detector 'oracle'"):
        detectors.restore(seal("oracle", Nothing()))


@pytest.mark.parametrize("name", detectors.names())
def test_snapshot_with_another_detectors_content_is_refused(name: str) -> None:
    with pytest.raises(SnapshotError, match="Snapshot"):
        detectors.restore(seal(name, Nothing()))


def test_snapshot_of_another_format_is_refused() -> None:
    body = msgspec.msgpack.encode(Envelope(FORMAT + 1, "adwin", b""))
    stated = hashlib.blake2b(body, digest_size=DIGEST_SIZE).digest()
    with pytest.raises(SnapshotError, match=f"format {FORMAT}, was {FORMAT + 1}"):
        unseal(MAGIC + stated + body)


def test_text_is_no_snapshot() -> None:
    with pytest.raises(SnapshotError, match="as bytes, was str"):
        detectors.restore("e_detector")  # type: ignore[arg-type]


def test_only_the_folder_named_after_river_imports_it() -> None:
    modules = Path(registry.__file__).parent.rglob("*.py")
    importing = {module.parent.name for module in modules if "from river" in module.read_text(encoding="utf-8")}
    assert importing == {"river"}


def loaded_after(program: str) -> set[str]:
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = f"import sys, detectors; {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=paths)
    return set(done.stdout.split())


def test_river_is_imported_where_a_detector_needs_it() -> None:
    own = loaded_after("detectors.names(); detectors.create('e_detector'); detectors.create('cusum')")
    assert "river" not in own


def test_default_detectors_do_not_import_what_river_needs_for_data_sets() -> None:
    loaded = loaded_after(f"[detectors.create(name) for name in {DETECTORS_BY_DEFAULT}]")
    assert {"river.drift.adwin", "river.drift.page_hinkley"} <= loaded
    assert not {"river.drift", "river.datasets", "sklearn", "scipy.stats", "pandas"} & loaded


def test_package_imported_later_has_the_same_classes() -> None:
    made = "theirs = sys.modules['river.drift.adwin'].ADWIN; import river.drift; assert river.drift.ADWIN is theirs"
    assert "river.drift" in loaded_after(f"detectors.create('adwin'); {made}")
