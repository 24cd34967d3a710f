"""Rows stepped together against one row stepped alone, written out plainly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.betting import GRID_BINARY, GRID_LOW_VARIANCE, total
from detectors.rows.bank import BASELINE_CAP, BLOCK, LEARN, Bank, copy_variant, empty_bank, reshaped, run_of
from streams.ledger.encoding import pack

FIELDS = ("evidence", "totals", "n", "k", "own_n", "own_k", "learning", "kept", "kept_evidence")


class Row:
    """One e-detector in blocks, outcome by outcome, in plain Python."""

    def __init__(self, binary: bool, n: float, k: float, worse_by: float, growing: bool) -> None:
        self.grid = [float(bet) for bet in (GRID_BINARY if binary else GRID_LOW_VARIANCE)]
        self.evidence = [0.0] * len(self.grid)
        self.n, self.k, self.worse_by, self.growing = n, k, worse_by, growing

    def mean(self) -> float:
        """The largest mean that still counts as healthy."""
        guess = (self.k + 0.5) / (self.n + 1) + self.worse_by
        return min(max(guess, 1 / (self.n + 1)), 1 - 1e-9)

    def block(self, losses: list[float], growth: float | None = None) -> None:
        """Take the outcomes of one block: multiply their factors, then step the evidence once."""
        factor = [1.0] * len(self.grid)
        for loss in losses:
            mean = self.mean()
            factor = [f * (1 + bet * loss) / (1 + bet * mean) for f, bet in zip(factor, self.grid, strict=True)]
            if self.growing:
                self.n, self.k = self.n + 1, self.k + loss
        grown = len(losses) if growth is None else growth
        self.evidence = [(e + grown / len(self.grid)) * f for e, f in zip(self.evidence, factor, strict=True)]


def bank_with(binary: bool, baselines: list[tuple[float, float]]) -> Bank:
    """Return a bank whose rows know their baselines: (outcomes, mean)."""
    bank = empty_bank(binary, len(baselines))
    bank.n[:] = [n for n, _ in baselines]
    bank.k[:] = [n * mean for n, mean in baselines]
    bank.learning[:] = False
    return bank


def by_row(streams: np.ndarray, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and positions, sorted by row, of a table (rows per outcome, outcomes) with -1 where there is none."""
    place = np.broadcast_to(np.arange(start, start + streams.shape[1]), streams.shape)
    rows, places = streams[streams >= 0], place[streams >= 0]
    order = np.lexsort((places, rows))
    return rows[order], places[order]


def run(
    bank: Bank, streams: np.ndarray, losses: np.ndarray, worse_by: float, growing: bool, growth: Any = None
) -> None:
    rows, positions = by_row(streams)
    stepped = run_of(rows, positions, 0, -(-losses.size // BLOCK))
    with np.errstate(over="ignore"):
        path = bank.path(stepped, losses[positions], worse_by, growing, growth)
    bank.take(path, stepped.chunks - 1)
    if growing:
        bank.count(rows, losses[positions])


@st.composite
def runs(draw: st.DrawFn) -> tuple[bool, np.ndarray, np.ndarray, float, bool]:
    """Draw outcomes of an overall row and three slices, some without a slice and some without a loss."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size, binary = draw(st.integers(1, 150)), draw(st.booleans())
    streams = np.stack([np.zeros(size, np.int64), rng.integers(-1, 4, size)])
    streams[1, streams[1] == 0] = 1
    losses = rng.random(size) * rng.random()
    if binary:
        losses = (losses < draw(st.floats(0, 1))).astype(float)
    losses[rng.random(size) < draw(st.sampled_from([0.0, 0.2, 1.0]))] = np.nan
    return binary, streams, losses, draw(st.sampled_from([0.0, 0.02, 0.5])), draw(st.booleans())


@settings(max_examples=80)
@given(drawn=runs())
def test_bank_steps_each_row_as_if_it_were_alone(drawn: tuple[bool, np.ndarray, np.ndarray, float, bool]) -> None:
    binary, streams, losses, worse_by, growing = drawn
    baselines = [(600.0, 0.2), (500.0, 0.0), (20_000.0, 0.999), (1_000.5, 0.5)]
    bank = bank_with(binary, baselines)
    run(bank, streams, losses, worse_by, growing)
    for number, (n, mean) in enumerate(baselines):
        row = Row(binary, n, n * mean, worse_by, growing)
        mine = [
            (place, loss) for place, loss in enumerate(losses) if number in streams[:, place] and not np.isnan(loss)
        ]
        for chunk in range(-(-losses.size // BLOCK)):
            block = [loss for place, loss in mine if place // BLOCK == chunk]
            if block:
                row.block(block)
        np.testing.assert_allclose(bank.evidence[number], row.evidence, rtol=1e-9)
        assert bank.totals[number] == total(bank.evidence[number])
        # What a degraded version goes on to answer is no baseline for anybody.
        own = mine if growing else []
        assert bank.own_n[number] == len(own)
        assert bank.own_k[number] == pytest.approx(sum(loss for _, loss in own))
        if n + len(mine) <= BASELINE_CAP:
            assert (bank.n[number], bank.k[number]) == (pytest.approx(row.n), pytest.approx(row.k))


@settings(max_examples=40)
@given(drawn=runs(), inherited=st.sets(st.integers(0, 3)))
def test_row_that_inherited_shows_both_processes_and_the_others_one(
    drawn: tuple[bool, np.ndarray, np.ndarray, float, bool], inherited: set[int]
) -> None:
    binary, streams, losses, worse_by, growing = drawn
    bank = bank_with(binary, [(600.0, 0.2)] * 4)
    mine = np.array(sorted(inherited), np.int64)
    bank.replace(mine, bank.n, bank.k)
    run(bank, streams, losses, worse_by, growing)
    # Wilson's upper end of 120 of 600.
    spread = 1.645 * (0.16 / 600 + 1.645**2 / (4 * 600**2)) ** 0.5
    upper = (0.2 + 1.645**2 / 1_200 + spread) / (1 + 1.645**2 / 600)
    for number in range(4):
        row, kept = Row(binary, 600.0, 120.0, worse_by, growing), Row(binary, 1e15, 1e15 * upper, worse_by, False)
        for begin in range(0, losses.size, BLOCK):
            places = range(begin, min(begin + BLOCK, losses.size))
            block = [losses[place] for place in places if number in streams[:, place] and not np.isnan(losses[place])]
            if block:
                row.block(block)
                kept.block(block)
        shown = sum(row.evidence)
        if number in inherited:
            shown = 0.75 * shown + 0.25 * sum(kept.evidence)
        assert bank.totals[number] == pytest.approx(shown, rel=1e-6)


def test_inherited_baseline_is_never_joined_and_a_dropped_one_leaves_what_the_row_shows() -> None:
    bank = bank_with(True, [(600.0, 0.2)])
    bank.replace(np.array([0]), bank.n, bank.k)
    kept = float(bank.kept[0])
    run(bank, np.zeros((1, 640), np.int64), np.ones(640) * (np.arange(640) % 3 == 0), 0.0, True)
    assert (float(bank.kept[0]), bank.n[0]) == (kept, 1_240.0)
    growing = 0.75 * float(total(bank.evidence[0]))
    assert bank.totals[0] > growing
    bank.drop_inherited(0, 640.0, 214.0)
    assert (bank.kept[0], bank.totals[0]) == (0.0, pytest.approx(growing))


@settings(max_examples=40)
@given(drawn=runs())
def test_growth_by_time_replaces_the_count_of_outcomes(drawn: tuple[bool, np.ndarray, np.ndarray, float, bool]) -> None:
    binary, streams, losses, worse_by, growing = drawn
    bank = bank_with(binary, [(600.0, 0.2)] * 4)
    seconds = np.array([3.5, 0.0, 1.0, 2.0, 0.5])[: -(-losses.size // BLOCK)]
    run(bank, streams, losses, worse_by, growing, seconds)
    row = Row(binary, 600.0, 120.0, worse_by, growing)
    for begin, passed in zip(range(0, losses.size, BLOCK), seconds, strict=True):
        block = [loss for loss in losses[begin : begin + BLOCK] if not np.isnan(loss)]
        if block:
            row.block(block, passed)
    np.testing.assert_allclose(bank.evidence[0], row.evidence, rtol=1e-9)


def test_nothing_grows_where_no_time_passes() -> None:
    bank = bank_with(True, [(600.0, 0.2)])
    run(bank, np.zeros((1, 40), np.int64), np.ones(40), 0.0, True, np.zeros(2))
    assert bank.totals[0] == 0.0


def test_rows_of_other_streams_change_no_bit_of_a_row() -> None:
    rng = np.random.default_rng(4)
    losses = (rng.random(500) < 0.3).astype(float)
    alone, together = bank_with(True, [(600.0, 0.2)]), bank_with(True, [(600.0, 0.2)] * 4)
    run(alone, np.zeros((1, 500), np.int64), losses, 0.02, True)
    run(together, np.stack([np.zeros(500, np.int64), rng.integers(1, 4, 500)]), losses, 0.02, True)
    np.testing.assert_array_equal(together.evidence[0], alone.evidence[0])


def test_overflowing_evidence_stays_a_number() -> None:
    bank = bank_with(False, [(20_000.0, 0.0)])
    with np.errstate(all="raise", under="ignore"):
        for _ in range(40):
            run(bank, np.zeros((1, 320), np.int64), np.ones(320), 0.0, False)
    assert np.isfinite(bank.totals).all()
    assert bank.totals[0] >= 1e300


def test_learning_row_gathers_no_evidence_and_then_takes_its_own_outcomes_as_baseline() -> None:
    bank = empty_bank(True, 2)
    bank.learning[1], bank.n[1], bank.k[1] = False, 1_000.0, 100.0
    streams = np.stack([np.zeros(999, np.int64), np.ones(999, np.int64)])
    losses = (np.arange(999) % 5 == 0).astype(float)
    run(bank, streams, losses, 0.0, True)
    assert bank.totals[0] == 0.0
    assert bank.totals[1] > 0.0
    assert bank.learn().tolist() == []
    assert LEARN == 1_000
    run(bank, streams[:, :1], losses[:1], 0.0, True)
    assert bank.learn().tolist() == [0]
    assert not bank.learning.any()
    assert (bank.n[0], bank.k[0]) == (1_000.0, 201.0)
    assert bank.learn().tolist() == []
    run(bank, streams[:, :5], np.ones(5), 0.0, True)
    assert bank.totals[0] > 0.0


def test_losses_that_could_not_be_computed_count_for_nothing() -> None:
    bank = empty_bank(True, 1)
    run(bank, np.zeros((1, 3), np.int64), np.array([1.0, np.nan, 0.0]), 0.0, True)
    assert (bank.own_n[0], bank.own_k[0], bank.n[0]) == (2.0, 1.0, 2.0)


def test_nothing_joins_a_baseline_while_a_version_is_unhealthy() -> None:
    bank = bank_with(True, [(600.0, 0.2)])
    run(bank, np.zeros((1, 50), np.int64), np.ones(50), 0.0, False)
    assert (bank.n[0], bank.k[0]) == (600.0, 120.0)
    assert (bank.own_n[0], bank.own_k[0]) == (0.0, 0.0)
    assert bank.totals[0] > 1.0


def test_baseline_remembers_at_most_its_cap_and_the_newest_weigh_most() -> None:
    bank = bank_with(True, [(BASELINE_CAP, 0.0)])
    run(bank, np.zeros((1, 20_000), np.int64), np.ones(20_000), 0.0, True)
    assert bank.n[0] == BASELINE_CAP
    assert bank.k[0] == pytest.approx(BASELINE_CAP / 2)
    run(bank, np.zeros((1, 20_000), np.int64), np.ones(20_000), 0.0, True)
    assert bank.k[0] == pytest.approx(BASELINE_CAP * 0.75)


def test_restart_clears_the_evidence_of_one_row_and_keeps_baselines() -> None:
    bank = bank_with(True, [(600.0, 0.2)] * 2)
    run(bank, np.stack([np.zeros(64, np.int64), np.ones(64, np.int64)]), np.ones(64), 0.0, True)
    before = bank.n.copy()
    other = bank.totals[1]
    bank.restart(0)
    assert (bank.totals[0], bank.evidence[0].tolist(), bank.totals[1]) == (0.0, [0.0] * 12, other)
    np.testing.assert_array_equal(bank.n, before)


def test_forgotten_outcomes_are_taken_out_and_never_leave_less_than_nothing() -> None:
    bank = bank_with(True, [(600.0, 0.2), (10.0, 0.5)])
    bank.own_n[:], bank.own_k[:] = [100.0, 10.0], [30.0, 5.0]
    bank.forget(np.array([50.0, 100.0]), np.array([40.0, 100.0]))
    np.testing.assert_allclose(bank.n, [550.0, 0.0])
    np.testing.assert_allclose(bank.k, [80.0, 0.0])
    np.testing.assert_allclose(bank.own_n, [50.0, 0.0])
    np.testing.assert_allclose(bank.own_k, [0.0, 0.0])


def test_what_is_forgotten_of_a_full_baseline_is_what_is_still_remembered_of_it() -> None:
    """A full baseline fades with each outcome, so the outcomes to forget have faded as well."""
    for count in (320, 3_200, 16_000):
        bank = bank_with(True, [(BASELINE_CAP, 0.1)])
        for _ in range(count // BLOCK):
            run(bank, np.zeros((1, BLOCK), np.int64), np.ones(BLOCK), 0.0, True)
        assert bank.k[0] / bank.n[0] > 0.1 + 0.4 * count / BASELINE_CAP
        bank.forget(np.array([float(count)]), np.array([float(count)]))
        assert bank.k[0] / bank.n[0] == pytest.approx(0.1, abs=0.002), count


def numbered(rows: int) -> Bank:
    bank = empty_bank(True, rows)
    for i, name in enumerate(FIELDS):
        table = getattr(bank, name)
        table[...] = (
            np.arange(table.size).reshape(table.shape) % 2
            if name == "learning"
            else 100.0 * i + np.arange(table.size).reshape(table.shape)
        )
    return bank


@pytest.mark.parametrize(
    ("old", "new"), [((2, 3), (2, 3)), ((2, 3), (4, 3)), ((2, 3), (2, 5)), ((2, 3), (5, 4)), ((1, 1), (3, 9))]
)
def test_larger_table_keeps_every_row_at_its_stream_and_variant(old: tuple[int, int], new: tuple[int, int]) -> None:
    bank = numbered(old[0] * old[1])
    grown = reshaped(bank, old, new)
    fresh = empty_bank(True, 1)
    for stream in range(new[0]):
        for variant in range(new[1]):
            there = stream * new[1] + variant
            known = stream < old[0] and variant < old[1]
            for name in FIELDS:
                expected = getattr(bank, name)[stream * old[1] + variant] if known else getattr(fresh, name)[0]
                np.testing.assert_array_equal(getattr(grown, name)[there], expected)


def test_copied_variant_is_equal_in_everything_and_independent() -> None:
    bank = numbered(6)
    copy_variant(bank, (2, 3), 0, 2)
    for name in FIELDS:
        table = getattr(bank, name)
        np.testing.assert_array_equal(table[[2, 5]], table[[0, 3]])
    bank.n[0] = -1.0
    assert bank.n[2] != -1.0


def test_no_outcomes_step_nothing() -> None:
    bank = bank_with(True, [(600.0, 0.2)])
    nothing = np.zeros(0, np.int64)
    path = bank.path(run_of(nothing, nothing, 0, 3), np.zeros(0), 0.0, True)
    for chunk in range(3):
        bank.take(path, chunk)
    assert bank.totals.tolist() == [0.0]


def test_chunks_without_an_outcome_of_their_own_step_nothing() -> None:
    bank = bank_with(True, [(600.0, 0.2)])
    stepped = run_of(np.zeros(2, np.int64), np.array([5, 100]), 0, 5)
    path = bank.path(stepped, np.ones(2), 0.0, True)
    seen = path.totals[:, 0].tolist()
    assert seen[0] == seen[1] == seen[2]
    assert 0 < seen[2] < seen[3] == seen[4]


@given(drawn=runs(), first=st.integers(0, 4))
def test_path_in_two_parts_has_the_bits_of_one(
    drawn: tuple[bool, np.ndarray, np.ndarray, float, bool], first: int
) -> None:
    """A run that begins at a later chunk goes on where the one before it ended."""
    binary, streams, losses, worse_by, _ = drawn
    losses = np.round(losses * 8) / 8
    whole, parts = (bank_with(binary, [(600.0, 0.25), (500.0, 0.0), (20_000.0, 0.75), (1_000.0, 0.5)]) for _ in "ab")
    run(whole, streams, losses, worse_by, False)
    rows, positions = by_row(streams)
    cut = min(first * BLOCK, losses.size)
    for begin, end in ((0, cut), (cut, losses.size)):
        use = (positions >= begin) & (positions < end)
        chunks = -(-end // BLOCK) - begin // BLOCK
        if chunks:
            stepped = run_of(rows[use], positions[use], begin, chunks)
            parts.take(parts.path(stepped, losses[positions[use]], worse_by, False), chunks - 1)
    assert pack(parts.evidence) == pack(whole.evidence)
    assert pack(parts.totals) == pack(whole.totals)


@given(drawn=runs())
def test_path_is_the_same_whether_it_is_known_that_every_outcome_has_a_loss(
    drawn: tuple[bool, np.ndarray, np.ndarray, float, bool],
) -> None:
    binary, streams, losses, worse_by, growing = drawn
    losses = np.nan_to_num(losses)
    bank = bank_with(binary, [(600.0, 0.2)] * 4)
    rows, positions = by_row(streams)
    stepped = run_of(rows, positions, 0, -(-losses.size // BLOCK))
    paths = [bank.path(stepped, losses[positions], worse_by, growing, None, whole) for whole in (True, False)]
    assert pack(paths[0].evidence) == pack(paths[1].evidence)
    assert pack(paths[0].totals) == pack(paths[1].totals)
