"""Slice values that are too long are cut; two values are never kept as one."""

from __future__ import annotations

from typing import Any

import pytest

from streams.window.slice_values import CHARS_MAX, shortened


@pytest.mark.parametrize("value", ["", "DE", "x" * CHARS_MAX, "ä" * CHARS_MAX, True, 0, 2**53, None])
def test_usual_value_is_kept_as_it_is(value: Any) -> None:
    assert shortened(value) is value


def test_long_value_keeps_its_beginning_and_a_digest_of_all_of_it() -> None:
    first, second = "street " * 20 + "1", "street " * 20 + "2"
    assert shortened(first) != shortened(second)
    assert shortened(first)[:40] == first[:40]
    assert len(shortened(first)) == CHARS_MAX


def test_value_that_looks_like_a_cut_one_is_not_taken_for_it() -> None:
    cut = shortened("x" * 100)
    assert shortened(cut) not in (cut, shortened("x" * 99))
