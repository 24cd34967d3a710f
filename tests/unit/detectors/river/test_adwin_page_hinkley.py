"""river's detectors keep river's numbers, and only a rise is an alarm."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from river.drift import ADWIN, PageHinkley

import detectors
from detectors.river.adwin_page_hinkley import Adwin
from detectors.snapshots import seal, unseal
from unship.errors import SnapshotError


def losses(*stretches: tuple[float, int]) -> np.ndarray:
    means = np.repeat([mean for mean, _ in stretches], [count for _, count in stretches])
    return (np.random.default_rng(21).random(means.size) < means).astype(float)


def river_alarms(detector: Any, values: np.ndarray) -> list[int]:
    found = []
    for position, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(position)
    return found


RISES = losses((0.1, 3_000), (0.3, 2_000), (0.6, 2_000))
THERE_AND_BACK = losses((0.1, 3_000), (0.5, 2_000), (0.1, 3_000), (0.5, 2_000))


@pytest.mark.parametrize("parameters", [{}, {"delta": 0.2}, {"delta": 1e-5, "clock": 1, "grace_period": 200}])
def test_adwin_alarms_where_river_does_when_only_rises_happen(parameters: dict[str, Any]) -> None:
    expected = river_alarms(ADWIN(**parameters), RISES)
    found = detectors.create("adwin", **parameters).update_many(RISES).tolist()
    assert len(expected) >= 2
    assert set(found) <= set(expected)
    assert [alarm for alarm in expected if alarm >= 3_000][:1] == [alarm for alarm in found if alarm >= 3_000][:1]


@pytest.mark.parametrize("parameters", [{}, {"threshold": 20.0}, {"alpha": 0.99, "threshold": 5.0, "delta": 0.01}])
def test_page_hinkley_alarms_where_rivers_upward_mode_does(parameters: dict[str, Any]) -> None:
    expected = river_alarms(PageHinkley(mode="up", **parameters), THERE_AND_BACK)
    assert expected
    assert detectors.create("page_hinkley", **parameters).update_many(THERE_AND_BACK).tolist() == expected


def test_river_adwin_alarms_on_the_fall_and_ours_does_not() -> None:
    both = river_alarms(ADWIN(), THERE_AND_BACK)
    ours = detectors.create("adwin").update_many(THERE_AND_BACK).tolist()
    fall = [alarm for alarm in both if 5_000 <= alarm < 8_000]
    assert fall, "river itself did not see the fall, so this would prove nothing"
    assert ours == [alarm for alarm in both if alarm not in fall]


def test_page_hinkley_in_both_modes_starts_afresh_on_a_fall_without_an_alarm() -> None:
    both = river_alarms(PageHinkley(mode="both"), THERE_AND_BACK)
    ours = detectors.create("page_hinkley", mode="both").update_many(THERE_AND_BACK).tolist()
    fall = [alarm for alarm in both if 5_000 <= alarm < 8_000]
    assert fall
    assert ours == [alarm for alarm in both if alarm not in fall]


def test_page_hinkley_refuses_to_watch_falls_only() -> None:
    with pytest.raises(ValueError, match="'up' or 'both'"):
        detectors.create("page_hinkley", mode="down")


def test_pinned_alarms() -> None:
    assert detectors.create("adwin").update_many(THERE_AND_BACK).tolist() == [3_071, 8_031]
    assert detectors.create("page_hinkley").update_many(THERE_AND_BACK).tolist() == [3_119, 8_188]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("adwin", {"delta": 0.0}),
        ("adwin", {"delta": float("nan")}),
        ("adwin", {"clock": 0}),
        ("adwin", {"max_buckets": 0}),
        ("adwin", {"grace_period": -1}),
        ("page_hinkley", {"threshold": -1.0}),
        ("page_hinkley", {"threshold": float("nan")}),
        ("page_hinkley", {"alpha": 0.0}),
        ("page_hinkley", {"min_instances": 0}),
    ],
)
def test_impossible_parameter_is_refused_by_name(name: str, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        detectors.create(name, **parameters)


def test_adwin_window_cut_short_under_a_good_digest_is_refused() -> None:
    detector = Adwin()
    detector.update_many(RISES[:2_000])
    content: Any = msgspec.msgpack.decode(unseal(detector.snapshot()).payload, type=Adwin.content)
    for window in (b"", content.window[:100], content.window[:-1], content.window + b"\0", b"\xff" * 400):
        with pytest.raises(SnapshotError, match="window"):
            detectors.restore(seal("adwin", msgspec.structs.replace(content, window=window)))


def test_adwin_window_with_other_parameters_is_refused() -> None:
    content: Any = msgspec.msgpack.decode(unseal(Adwin().snapshot()).payload, type=Adwin.content)
    with pytest.raises(SnapshotError, match="window"):
        detectors.restore(seal("adwin", msgspec.structs.replace(content, delta=0.5)))


@pytest.mark.parametrize("name", ["adwin", "page_hinkley"])
def test_snapshot_taken_at_the_alarm_starts_afresh_like_the_original(name: str) -> None:
    detector = detectors.create(name)
    first = int(detector.update_many(THERE_AND_BACK)[0])
    stopped = detectors.create(name)
    assert stopped.update_many(THERE_AND_BACK[: first + 1]).tolist() == [first]
    again = detectors.restore(stopped.snapshot())
    again.update_many(THERE_AND_BACK[first + 1 :])
    assert again.snapshot() == detector.snapshot()
