"""One promise shared by many streams."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.multiplicity import e_d_bh, stream_weights


@pytest.mark.parametrize(("losses", "slice_cap"), [(1, 0), (1, 50), (2, 50), (3, 7), (2, 0)])
def test_weights_of_all_possible_streams_add_up_to_one(losses: int, slice_cap: int) -> None:
    overall, of_slice = stream_weights(losses, slice_cap)
    assert losses * overall + losses * slice_cap * of_slice == pytest.approx(1.0)


def test_half_of_the_weight_is_the_overall_streams_when_there_are_slices() -> None:
    assert stream_weights(1, 50) == (0.5, 0.01)


@pytest.mark.parametrize(("losses", "slice_cap"), [(0, 5), (1, -1)])
def test_impossible_number_of_streams_is_refused(losses: int, slice_cap: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        stream_weights(losses, slice_cap)


def test_more_streams_that_changed_lower_the_bar_for_each() -> None:
    # 100 streams at alpha .05: alone a stream needs 2,000; two need 1,000 each.
    assert e_d_bh([1_500.0, 1.0], streams=100).tolist() == [False, False]
    assert e_d_bh([1_500.0, 1_000.0], streams=100).tolist() == [True, True]
    assert e_d_bh([1_000.0, 3.0, 1_500.0], streams=100).tolist() == [True, False, True]


def test_no_streams_name_nothing() -> None:
    assert e_d_bh([], streams=10).tolist() == []


def test_impossible_evidence_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        e_d_bh([1.0, 2.0], streams=1)
    with pytest.raises(ValueError, match="alpha"):
        e_d_bh(np.ones(3), streams=3, alpha=1.0)
