"""Check the properties that every detector must have: ``for title, check in yield_checks(name): check()``.

A check raises AssertionError with the numbers that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from detectors.base import Detector, Floats
from detectors.registry import create, restore
from unship.errors import SnapshotError

Make = Callable[[], Detector]

LARGEST_SNAPSHOT_BYTES = 16_384


def yield_checks(name: str, **parameters: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield (title, check) for the detector ``name`` made with ``parameters``.

    Example:
        >>> [title for title, _ in yield_checks("e_detector")][:2]
        ['update_many_equals_a_loop', 'snapshot_goes_on_bit_for_bit']
    """
    make = partial(create, name, **parameters)
    for check in CHECKS:
        yield check.__name__.removeprefix("check_"), partial(check, make)


def losses_like(make: Make, rng: np.random.Generator, *means_and_counts: tuple[float, int]) -> Floats:
    """Return seeded losses that a detector accepts, with the given mean for each stretch: 0/1, or real-valued."""
    means = np.concatenate([np.full(count, mean) for mean, count in means_and_counts])
    wrong = (rng.random(means.size) < means).astype(np.float64)
    if make().accepts == "binary" or rng.random() < 0.5:
        return wrong
    # The same mean with values between: a wrong answer costs 0.5 to 1, and there are more of them.
    return np.where(rng.random(means.size) < means / 0.75, rng.uniform(0.5, 1.0, means.size), 0.0)


def check_update_many_equals_a_loop(make: Make) -> None:
    """Check that single losses, one batch, and batches cut at random give the same alarms and the same snapshot."""
    rng = np.random.default_rng(11)
    for _ in range(4):
        losses = losses_like(make, rng, (0.1, 2_500), (0.6, 500), (0.1, 1_000), (0.7, 500))
        looped, whole, cut = make(), make(), make()
        one_by_one = [position for position, loss in enumerate(losses.tolist()) if looped.update(loss)]
        at_once = whole.update_many(losses)
        assert at_once.dtype.kind == "i", f"alarm positions are {at_once.dtype}, expected integers"
        edges = [0, *sorted(rng.integers(0, losses.size + 1, 12).tolist()), losses.size]
        pieces = [
            low + int(position) for low, high in pairwise(edges) for position in cut.update_many(losses[low:high])
        ]
        assert one_by_one == at_once.tolist() == pieces, f"loop {one_by_one}, batch {at_once}, pieces {pieces}"
        assert one_by_one, "no alarm on a rise from .1 to .6: the comparison would be empty"
        assert looped.snapshot() == whole.snapshot() == cut.snapshot(), "the same losses left different snapshots"


def check_snapshot_goes_on_bit_for_bit(make: Make) -> None:
    """Check that a detector restored at any point alarms where the original does and ends in the same snapshot."""
    rng = np.random.default_rng(12)
    losses = losses_like(make, rng, (0.1, 2_500), (0.6, 700), (0.1, 800))
    for point in [0, 1, *rng.integers(2, losses.size, 12).tolist(), losses.size]:
        original = make()
        original.update_many(losses[:point])
        saved = original.snapshot()
        again = restore(saved)
        assert again.snapshot() == saved, f"a snapshot taken at {point} does not come back as it was"
        expected, found = original.update_many(losses[point:]), again.update_many(losses[point:])
        assert expected.tolist() == found.tolist(), f"restored at {point}: alarms {found}, expected {expected}"
        assert again.snapshot() == original.snapshot(), f"restored at {point}: another snapshot at the end"


def check_damaged_snapshot_is_refused(make: Make) -> None:
    """Check that bytes cut short, with any byte flipped, or foreign raise SnapshotError, and nothing else."""
    rng = np.random.default_rng(13)
    detector = make()
    detector.update_many(losses_like(make, rng, (0.1, 1_500)))
    saved = detector.snapshot()
    damaged = [saved[: int(cut)] for cut in rng.integers(0, len(saved), 20)]
    for place in rng.integers(0, len(saved), 60).tolist():
        damaged.append(saved[:place] + bytes([saved[place] ^ (1 << int(rng.integers(8)))]) + saved[place + 1 :])
    for data in (*damaged, saved + b"\0", b"", b"\x80\x04N.", rng.bytes(200)):
        try:
            restore(data)
        except SnapshotError:
            continue
        raise AssertionError(f"a damaged snapshot of {len(data)} bytes was accepted")


def check_memory_is_bounded(make: Make) -> None:
    """Check that the snapshot, which holds all of the detector's state, stays small over 100,000 losses."""
    rng = np.random.default_rng(14)
    detector = make()
    for _ in range(10):
        detector.update_many(losses_like(make, rng, (0.1, 10_000)))
        size = len(detector.snapshot())
        assert size <= LARGEST_SNAPSHOT_BYTES, f"the snapshot has {size} bytes, at most {LARGEST_SNAPSHOT_BYTES}"


def check_rise_is_an_alarm(make: Make) -> None:
    """Check that a mean that rises from .1 to .6 raises an alarm after the rise and none before it."""
    rng = np.random.default_rng(15)
    for _ in range(5):
        losses = losses_like(make, rng, (0.1, 3_000), (0.6, 1_000))
        alarms = make().update_many(losses)
        first = int(alarms[0]) if alarms.size else None
        assert first is not None, "no alarm on a rise from .1 to .6"
        assert first >= 3_000, f"first alarm at {first}, before the rise at 3000"


def check_fall_is_silent(make: Make) -> None:
    """Check that a mean that falls from .5 to .05 raises no alarm: it is an improvement."""
    rng = np.random.default_rng(16)
    for _ in range(5):
        alarms = make().update_many(losses_like(make, rng, (0.5, 3_000), (0.05, 3_000)))
        assert not (alarms >= 3_000).any(), f"alarms at {alarms} after an improvement at 3000"


def check_same_losses_same_bytes(make: Make) -> None:
    """Check that two detectors given the same losses are equal to the last bit, without any seed."""
    losses = losses_like(make, np.random.default_rng(17), (0.2, 5_000), (0.5, 500))
    first, second = make(), make()
    assert first.update_many(losses).tolist() == second.update_many(losses).tolist()
    assert first.snapshot() == second.snapshot(), "the same losses left different snapshots"


def check_impossible_losses_are_refused(make: Make) -> None:
    """Check that NaN, infinities and numbers outside [0, 1] raise ValueError with position and value.

    So must numbers between 0 and 1 where a detector accepts only these two. A refused batch changes nothing.
    """
    detector = make()
    before = detector.snapshot()
    between = (0.5, 1e-9, 1.0 - 1e-9) if detector.accepts == "binary" else ()
    for bad in (float("nan"), float("inf"), -float("inf"), -1e-9, 1.0 + 1e-9, 2.0, *between):
        for attempt in (partial(detector.update_many, [0.0, 1.0, bad]), partial(detector.update, bad)):
            message = ""
            try:
                attempt()
            except ValueError as error:
                message = str(error)
            assert message, f"the loss {bad} was accepted"
            assert str(bad) in message, f"{message!r} does not name the loss {bad}"
            assert "position" in message, f"{message!r} does not name the position"
    assert detector.snapshot() == before, "a refused batch left a trace"


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_update_many_equals_a_loop,
    check_snapshot_goes_on_bit_for_bit,
    check_damaged_snapshot_is_refused,
    check_memory_is_bounded,
    check_rise_is_an_alarm,
    check_fall_is_silent,
    check_same_losses_same_bytes,
    check_impossible_losses_are_refused,
)
