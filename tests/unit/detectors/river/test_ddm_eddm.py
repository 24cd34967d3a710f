"""river's detectors for 0/1 losses keep river's alarms, and only a rise is one of ours."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from river.drift.binary import DDM, EDDM, FHDDM, HDDMA, HDDMW

import detectors
from detectors.river.ddm_eddm import Ddm, Eddm
from detectors.river.fhddm_kswin import Fhddm
from detectors.river.hddm import HddmA, HddmW
from detectors.snapshots import seal, unseal
from unship.errors import SnapshotError

NAMES = ("ddm", "eddm", "fhddm", "hddm_a", "hddm_w")


def losses(*stretches: tuple[float, int], seed: int = 21) -> np.ndarray:
    means = np.repeat([mean for mean, _ in stretches], [count for _, count in stretches])
    return (np.random.default_rng(seed).random(means.size) < means).astype(int)


def river_alarms(detector: Any, values: np.ndarray) -> list[int]:
    found = []
    for position, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(position)
    return found


THERE_AND_BACK = losses((0.1, 2_000), (0.5, 1_500), (0.1, 2_000), (0.6, 1_500))
DECAY = losses((0.1, 2_000), (0.6, 1_000))
IMPROVEMENT = losses((0.5, 2_000), (0.05, 2_000))


@pytest.mark.parametrize(
    ("name", "river", "parameters"),
    [
        ("ddm", DDM, {}),
        ("ddm", DDM, {"warm_start": 100, "warning_threshold": 1.5, "drift_threshold": 2.5}),
        ("eddm", EDDM, {}),
        ("eddm", EDDM, {"warm_start": 50, "alpha": 0.8, "beta": 0.75}),
        ("hddm_a", HDDMA, {}),
        ("hddm_a", HDDMA, {"drift_confidence": 0.05, "warning_confidence": 0.1}),
        ("hddm_w", HDDMW, {}),
        ("hddm_w", HDDMW, {"drift_confidence": 0.01, "warning_confidence": 0.05, "lambda_val": 0.1}),
    ],
)
def test_alarms_are_rivers(name: str, river: Any, parameters: dict[str, Any]) -> None:
    expected = river_alarms(river(**parameters), THERE_AND_BACK)
    assert expected
    assert detectors.create(name, **parameters).update_many(THERE_AND_BACK).tolist() == expected


@pytest.mark.parametrize("parameters", [{}, {"short_window_size": 30}, {"sliding_window_size": 40}])
def test_fhddm_alarms_are_rivers_when_river_is_fed_right_answers(parameters: dict[str, Any]) -> None:
    expected = river_alarms(FHDDM(**parameters), 1 - THERE_AND_BACK)
    assert expected
    assert detectors.create("fhddm", **parameters).update_many(THERE_AND_BACK).tolist() == expected


def test_river_fhddm_fed_as_documented_misses_the_decay_and_ours_does_not() -> None:
    decay = losses((0.1, 2_000), (0.6, 600))
    assert river_alarms(FHDDM(), decay) == []
    assert detectors.create("fhddm").update_many(decay).tolist() == [2_032]


@pytest.mark.parametrize("name", NAMES)
def test_decay_is_an_alarm(name: str) -> None:
    assert (detectors.create(name).update_many(DECAY) >= 2_000).any()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ddm", {}),
        ("eddm", {"beta": 0.7}),
        ("fhddm", {}),
        ("hddm_a", {}),
        ("hddm_a", {"two_sided_test": True}),
        ("hddm_w", {}),
        ("hddm_w", {"two_sided_test": True}),
    ],
)
def test_improvement_is_no_alarm(name: str, parameters: dict[str, Any]) -> None:
    assert not (detectors.create(name, **parameters).update_many(IMPROVEMENT) >= 2_000).any()


@pytest.mark.parametrize(("name", "river"), [("hddm_a", HDDMA), ("hddm_w", HDDMW)])
def test_two_sided_test_starts_afresh_on_a_fall_without_an_alarm(name: str, river: Any) -> None:
    both = river_alarms(river(two_sided_test=True), THERE_AND_BACK)
    falls = [alarm for alarm in both if 3_500 <= alarm < 5_500]
    assert falls, "river itself did not see the fall, so this would prove nothing"
    ours = detectors.create(name, two_sided_test=True).update_many(THERE_AND_BACK).tolist()
    assert set(ours) < set(both)
    assert not set(ours) & set(falls)
    # Having started afresh, it sees the second rise where river does.
    assert [alarm for alarm in ours if alarm >= 5_500][:1] == [alarm for alarm in both if alarm >= 5_500][:1]


def test_pinned_alarms() -> None:
    found = {name: detectors.create(name).update_many(DECAY).tolist() for name in NAMES}
    # The first of DDM and the first six of EDDM are false, as they are in river.
    assert found.pop("eddm")[:8] == [239, 566, 892, 1_149, 1_499, 1_757, 2_010, 2_141]
    assert found == {"ddm": [58, 2_040], "fhddm": [2_032], "hddm_a": [2_038], "hddm_w": [2_025]}


@pytest.mark.parametrize("name", NAMES)
def test_loss_between_is_refused_with_position_and_value(name: str) -> None:
    detector = detectors.create(name)
    before = detector.snapshot()
    with pytest.raises(ValueError, match=r"a loss of 0 or 1, was 0\.5 at position 2"):
        detector.update_many([0.0, 1.0, 0.5, 0.25])
    with pytest.raises(ValueError, match=r"a loss of 0 or 1, was 0\.25 at position 0"):
        detector.update(0.25)
    assert detector.snapshot() == before


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ddm", {"warm_start": 0}),
        ("ddm", {"drift_threshold": 0.0}),
        ("ddm", {"warning_threshold": float("nan")}),
        ("eddm", {"warm_start": 2.5}),
        ("eddm", {"alpha": 0.8}),
        ("eddm", {"beta": 1.5}),
        ("fhddm", {"sliding_window_size": 20_000}),
        ("fhddm", {"short_window_size": 101}),
        ("fhddm", {"confidence_level": 0.0}),
        ("hddm_a", {"drift_confidence": 1.0}),
        ("hddm_a", {"warning_confidence": float("nan")}),
        ("hddm_w", {"lambda_val": 0.0}),
        ("hddm_w", {"drift_confidence": -0.1}),
    ],
)
def test_impossible_parameter_is_refused_by_name(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        detectors.create(name, **parameters)


@pytest.mark.parametrize("name", NAMES)
def test_snapshot_taken_at_the_alarm_starts_afresh_like_the_original(name: str) -> None:
    detector = detectors.create(name)
    first = int(detector.update_many(THERE_AND_BACK)[0])
    stopped = detectors.create(name)
    assert stopped.update_many(THERE_AND_BACK[: first + 1]).tolist() == [first]
    again = detectors.restore(stopped.snapshot())
    again.update_many(THERE_AND_BACK[first + 1 :])
    assert again.snapshot() == detector.snapshot()


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        ("ddm", Ddm.content, {"warm_start": 0}),
        ("ddm", Ddm.content, {"mean": 1.5}),
        ("ddm", Ddm.content, {"p_min": None}),
        ("ddm", Ddm.content, {"ps_min": 0.0}),
        ("eddm", Eddm.content, {"beta": 0.99}),
        ("eddm", Eddm.content, {"errors": 10_000}),
        ("eddm", Eddm.content, {"squares": -1.0}),
        ("fhddm", Fhddm.content, {"window": b"\1" * 100}),
        ("fhddm", Fhddm.content, {"window": b"\2"}),
        ("fhddm", Fhddm.content, {"confidence_level": 2.0}),
        ("hddm_a", HddmA.content, {"drift_confidence": 0.0}),
        ("hddm_w", HddmW.content, {"lambda_val": 7.0}),
    ],
)
def test_impossible_content_under_a_good_digest_is_refused(name: str, kind: Any, changes: dict[str, Any]) -> None:
    detector = detectors.create(name)
    detector.update_many(DECAY[:1_000])
    content = msgspec.msgpack.decode(unseal(detector.snapshot()).payload, type=kind)
    assert detectors.restore(seal(name, content)).snapshot() == detector.snapshot()
    with pytest.raises(SnapshotError):
        detectors.restore(seal(name, msgspec.structs.replace(content, **changes)))


def test_hddm_cuts_later_than_now_are_refused() -> None:
    detector = detectors.create("hddm_a")
    detector.update_many(DECAY[:500])
    content = msgspec.msgpack.decode(unseal(detector.snapshot()).payload, type=HddmA.content)
    with pytest.raises(SnapshotError, match="counts"):
        detectors.restore(seal("hddm_a", msgspec.structs.replace(content, count=1.0)))


def test_hddm_w_weights_above_one_are_refused() -> None:
    content: Any = msgspec.msgpack.decode(unseal(detectors.create("hddm_w").snapshot()).payload, type=HddmW.content)
    heavy = msgspec.structs.replace(content.overall, squared_weights=1.5)
    with pytest.raises(SnapshotError, match="squared weights"):
        detectors.restore(seal("hddm_w", msgspec.structs.replace(content, overall=heavy)))
