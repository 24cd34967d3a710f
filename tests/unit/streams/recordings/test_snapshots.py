"""Which snapshot of a ledger partition counts, whatever somebody did to the topic that holds them."""

import asyncio
import random
from typing import Any

import msgspec
import pytest

import streams.kafka.snapshots as module
from streams.config.parse import parse
from streams.config.resolved import FOLD_VERSION
from streams.fold.fold import Fold
from streams.kafka.clients import Access
from streams.kafka.snapshots import Saved, SnapshotStore
from streams.ledger.encoding import pack
from streams.ledger.records import Deployed
from streams.pipeline import configuration_record
from tests.pipelines import step
from unship.events import Deployment
from unship.topics import TopicNames

CONFIG = parse("log: embedded:./x")


class Kept:
    """Takes what a store writes, as a compacted topic keeps it."""

    def __init__(self) -> None:
        self.saved: Saved = {}

    async def send_and_wait(self, topic: str, value: bytes, key: bytes, partition: int) -> None:
        self.saved[key] = value


def store(kept: Kept) -> SnapshotStore:
    return SnapshotStore(Access({}, TopicNames()), kept)


def load(used: SnapshotStore, kept: Kept) -> Fold | None:
    async def stands(last: Any) -> bool:
        return True

    found = asyncio.run(used.load(kept.saved, 3, CONFIG, stands))
    return None if found is None else found[0]


def folds(count: int) -> list[Fold]:
    """Return folds of one ledger, one record further each."""
    found = []
    for length in range(1, count + 1):
        fold = Fold(CONFIG)
        step(fold, configuration_record(CONFIG))
        for number in range(length):
            event = Deployment(model=f"m{number}", version="v1", status="live", ts=1, at=("deployments", 0, number, 1))
            step(fold, Deployed(-1, event))
        found.append(fold)
    return found


def written(kept: Kept, saved: list[Fold], by: SnapshotStore | None = None) -> SnapshotStore:
    used = by or store(kept)
    for fold in saved:
        asyncio.run(used.save(3, fold.offset, pack(fold.save())))
    return used


def loaded(kept: Kept) -> int | None:
    found = load(store(kept), kept)
    return None if found is None else found.offset


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 300)


def test_newest_counts_and_one_that_a_zombie_writes_later_does_not() -> None:
    kept, (oldest, *others) = Kept(), folds(7)
    zombie = written(kept, [oldest])
    written(kept, others, store(kept))
    newest = others[-1].offset
    assert loaded(kept) == newest
    # It was thought dead, and goes on where it was: one slot is spoiled, and that may be the newest one's.
    written(kept, [oldest], zombie)
    assert loaded(kept) in (newest, newest - 1)


def test_controller_that_takes_over_writes_behind_the_newest_slot() -> None:
    kept, all_of_them = Kept(), folds(7)
    written(kept, all_of_them[:6])
    successor = store(kept)
    assert load(successor, kept) is not None
    written(kept, all_of_them[6:], successor)
    # The oldest slot was written over, and the newest before is still there.
    heads = [msgspec.json.decode(kept.saved[f"3/{slot}/head".encode()] or b"")["offset"] for slot in range(4)]
    assert sorted(heads) == [fold.offset for fold in all_of_them[3:]]


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_costs_a_slot_and_never_a_wrong_fold(seed: int) -> None:
    rng = random.Random(seed)
    kept, all_of_them = Kept(), folds(4)
    written(kept, all_of_them)
    digests = {fold.offset: msgspec.msgpack.encode(fold.save().chain) for fold in all_of_them}
    for _ in range(rng.randrange(1, 6)):
        damage(kept.saved, rng)
    found = load(store(kept), kept)
    assert found is None or digests[found.offset] == msgspec.msgpack.encode(found.save().chain)


def damage(saved: dict[Any, Any], rng: random.Random) -> None:
    """Flip a bit of a record, cut it short, delete it, or put another one in its place."""
    key = rng.choice(sorted(saved))
    value = bytearray(saved[key] or b"x")
    kind = rng.randrange(4)
    if kind == 0:
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        saved[key] = bytes(value)
    elif kind == 1:
        saved[key] = bytes(value[: rng.randrange(len(value))])
    elif kind == 2:
        saved[key] = None
    else:
        saved[key] = saved[rng.choice(sorted(saved))]


def test_snapshot_of_another_version_is_passed_over_for_an_older_one_or_for_the_whole_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, (old, new) = Kept(), folds(2)
    used = written(kept, [old])
    monkeypatch.setattr("streams.fold.fold.FOLD_VERSION", FOLD_VERSION + 1)
    written(kept, [new], used)
    monkeypatch.undo()
    assert loaded(kept) == old.offset
    monkeypatch.setattr("streams.fold.fold.FOLD_VERSION", FOLD_VERSION + 2)
    assert loaded(kept) is None
