"""The join of whole blocks against the window of objects, which is given one record after the other."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from streams.config.parse import parse
from streams.config.units import DAY_MS
from streams.join.partition import FEEDBACK, KINDS, PREDICTIONS, Given, PartitionJoin, SavedJoin, refusal
from streams.join.pending import Pending
from streams.ledger.encoding import pack, unpack
from streams.ledger.places import INDEX_BITS
from streams.window import cells, early_labels, pending_predictions, series, slice_values
from streams.window.batch_window import BatchWindow
from streams.window.decoding import decoded_records, source_decoders, with_packed
from streams.window.join_window import JoinWindow
from streams.window.joined import AT, CELL, LABELLED_AT, LABELLED_BY, LINE, POSITION, SOURCE, UNIT
from streams.window.pending_predictions import PendingPrediction
from streams.window.series import SeriesTable, WindowRule
from streams.window.slice_values import shortened
from streams.window.tally import Tally
from tests.effort import some_of
from unship.codec import decode_value, encode_line
from unship.events import Feedback, Prediction
from unship.log.packed import pack_values, unpack_value
from unship.rejections import RejectCode, Rejection

START = 1_772_409_600_000
DEFAULT = WindowRule(12, 4, ("country", "vip"))
LONG = WindowRule(96, 32, ("country", "vip"))
# Cut and marked, and a value that looks like a cut one.
COUNTRIES = ("x" * 65, "x" * 64, shortened("x" * 65))
BY_TRUTH = {"n": WindowRule(6, 2, ("vip",))}
BY_MORE = {
    **BY_TRUTH,
    "used": WindowRule(10, 3, ("country",), truth=False, engagement=True),
    "seen": WindowRule(8, 2, ("country",), unlabelled=True, latency=True),
}
REVISED = {"n": WindowRule(6, 2, ("vip",), revised_ms=4, revised_by=("desk-1", "desk-2")), "used": BY_MORE["used"]}
REVISED_DEFAULT = WindowRule(12, 4, ("country", "vip"), revised_ms=12, revised_by=("default",))


class Recorded(NamedTuple):
    """A record of a log, its join clock, and the values in it."""

    offset: int
    append_ts: int
    at: int
    value: bytes
    inner: list[bytes]


class Joined:
    """Everything that was joined, by the positions of events and independent of the order in which they were read."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Any, ...]] = []
        self.seen: list[tuple[Any, ...]] = []
        self.pairs: list[tuple[int, int, int]] = []
        self.seen_pairs: list[tuple[int, int]] = []
        self._counts: Counter[tuple[str, int, int]] = Counter()

    def count(self, rows: Sequence[tuple[str, int, int, int]]) -> None:
        for reason, change, prediction, feedback in rows:
            self._counts[str(reason), prediction, feedback] += change

    @property
    def counts(self) -> dict[tuple[str, int, int], int]:
        return {place: count for place, count in self._counts.items() if count}

    def everything(self) -> dict[str, Any]:
        """Return all of it, in an order that depends on the logs alone."""
        rows = {name: sorted(each) for name, each in vars(self).items() if not name.startswith("_")}
        return {**rows, "counts": self.counts}


def event_of(rng: random.Random, models: Sequence[str], side: int) -> bytes:
    """Return an event of few ids, so that much comes twice, and with every kind of value."""
    key: dict[str, Any] = {"id": rng.choice(["a", "b", "ä" * 40, "c" * 128, *map(str, range(rng.choice([3, 40])))])}
    if rng.random() < 0.2:
        key |= {"row": rng.choice([0, 1]), "target": rng.choice(["", "price"])}
    if rng.random() < 0.02:
        key["ts"] = START + 2 * DAY_MS
    elif rng.random() < 0.5:
        # A time as text is read by the codec alone.
        key["ts"] = START if rng.random() < 0.9 else "2026-03-02T00:00:00Z"
    value: Any = rng.choice([0, 1, 1, True, False, 1.0, 0.5, "no", [1, "a"], [], 2**53])
    if side == FEEDBACK:
        # Some have no truth, some name a model that has the key or not.
        truth = None if (engaged := rng.random() < 0.2) and rng.random() < 0.5 else value
        return encode_line(
            Feedback(
                truth=truth,
                engagement=rng.choice([0.0, 0.25]) if engaged else None,
                model=rng.choice([None, None, None, *models, "unheard of"]),
                source=rng.choice(["default", "default", *(f"desk-{number}" for number in range(6))]),
                **key,
            )
        )
    version = rng.choice(["v1", "v1", "v2", "v3"])
    pool: dict[str, Any] = {
        "country": rng.choice(["DE", "FR", "1", *COUNTRIES]),
        "vip": rng.choice([True, 1, 0, False, "1"]),
        "other": 1,
    }
    return encode_line(
        Prediction(
            model=rng.choice(models),
            version=version,
            role="shadow" if version == "v3" else rng.choice(["live", "live", "holdback"]),
            output=value,
            score=rng.choice([None, 0.0, 0.5, 1.0]),
            scores=rng.choice([None, None, {"a": 0.5, "b": 0.5}]),
            slices=dict(rng.sample(sorted(pool.items()), rng.randrange(4))),
            latency_ms=rng.choice([None, 5.0]),
            replica=rng.choice([None, "r-1"]),
            unit_hash=None if version == "v2" else len(key["id"]) * 2**25,
            **key,
        )
    )


def log_of(rng: random.Random, models: Sequence[str], side: int, *, packed: bool) -> list[Recorded]:
    """Return one log; its clock jitters, and its last record is so late that nothing waits any more."""
    log: list[Recorded] = []
    now = clock = START
    for offset in range(rng.choice([20, 100])):
        now += rng.choice([0, 0, 0, 1, 1, 2, 3])
        append_ts = max(now - rng.choice([0, 0, 0, 1, 4]), 0)
        clock = max(clock, append_ts)
        values = [event_of(rng, models, side) for _ in range(rng.randrange(1, 6) if packed else 1)]
        if rng.random() < 0.03:
            values = [rng.choice([b"{oops", b"", b'{"id":"a"}'])]
        value = values[0] if len(values) == 1 else next(iter(pack_values(values)))[0]
        inner = unpack_value(value)
        log.append(Recorded(2 * offset, append_ts, clock, value, inner if isinstance(inner, list) else [value]))
    last = b'{"id":"last","model":"m","version":"v1","output":1}' if side == PREDICTIONS else b'{"id":"end","truth":1}'
    log.append(Recorded(1_000, clock + 10_000, clock + 10_000, last, [last]))
    return log


def one_by_one(
    rng: random.Random, logs: Sequence[list[Recorded]], rules: dict[str, WindowRule], default: WindowRule
) -> Joined:
    """Give every event to the window of objects, in any order of the two logs, with evictions at any moment."""
    joined, tally = Joined(), Tally()
    window = JoinWindow(rules, default, tally)
    engagement = any(rule.engagement for rule in rules.values())
    left, clocks = [list(log) for log in logs], [-1, -1]
    while any(left):
        side = rng.choice([number for number, log in enumerate(left) if log])
        record = left[side].pop(0)
        clocks[side] = record.at
        if side == PREDICTIONS:
            window.witness(record.offset << INDEX_BITS, record.at)
        for index, value in enumerate(record.inner):
            position = record.offset << INDEX_BITS | index
            place = (position, -1) if side == PREDICTIONS else (-1, position)
            event = decode_value(KINDS[side], value)
            code = event.code if isinstance(event, Rejection) else refusal(event.ts, record.append_ts)
            if code is not None:
                tally.add(code, place)
            elif isinstance(event, Prediction):
                pending = window.add_prediction(event, position, record.at)
                if pending is not None:
                    joined.seen.append(seen_of(window.series, pending))
            else:
                assert isinstance(event, Feedback), event
                if event.truth is None and not engagement:
                    tally.add(RejectCode.UNUSABLE_TRUTH, place)
                else:
                    window.add_feedback(event, position, record.at)
        if rng.random() < 0.3:
            window.evict(*clocks)
    window.evict(*clocks)
    outcomes, pairs, seen_pairs = window.take()
    for outcome in outcomes:
        each = outcome.prediction
        used = more_of(window.series, each.series, each.scores, each.engagement, each.latency_ms)
        times = (each.position, each.at, each.labelled_by, outcome.labelled_at, outcome.source)
        answer = (repr(each.output), repr(each.score), repr(each.truth))
        joined.outcomes.append((*times, repr(window.series[each.series]), repr(each.slices), *answer, used, each.unit))
    joined.pairs = [(pair.live.position, pair.shadow.position, pair.labelled_at) for pair in pairs]
    joined.seen_pairs = [(live.position, shadow.position) for live, shadow in seen_pairs]
    joined.count(tally.take())
    assert not window.unused()
    return joined


def seen_of(series: SeriesTable, pending: PendingPrediction) -> tuple[Any, ...]:
    return pending.position, pending.at, repr(series[pending.series]), repr(pending.slices)


def more_of(series: SeriesTable, code: int, scores: Any, engagement: Any, latency: Any) -> str:
    """Return what some losses need. An engagement is kept for models that are judged by it only."""
    return repr((scores or None, engagement if series.rules[code].engagement else None, latency))


class Blocks:
    """A join that is given blocks of records; `limit` is how many rows a generation has."""

    def __init__(self, rules: dict[str, WindowRule], limit: int, default: WindowRule = DEFAULT) -> None:
        self.rules = rules
        self.default = default
        self.limit = limit
        self.joined = Joined()
        self.decoders = source_decoders()
        self.lines = 0
        self.line_of: dict[tuple[int, int], int] = {}
        self.last_cut = -1
        self.join = self.new_join()

    def new_join(self) -> PartitionJoin:
        join = PartitionJoin(parse(""))
        join.window = BatchWindow(self.rules, self.default, join.tally, b"any")
        join.window.limit_generations(self.limit)
        join.pending = Pending(join.window)
        return join

    def give(self, side: int, records: Sequence[Recorded]) -> None:
        values = [record.value for record in records]
        block, packed = decoded_records(self.decoders[side], KINDS[side], values)
        columns = np.array([(record.offset, record.append_ts, record.at) for record in records], np.int64).T
        line = np.arange(self.lines, self.lines + len(records)) << INDEX_BITS
        self.lines += len(records)
        shape = self.decoders[side].shape_of(KINDS[side])
        given = Given(columns[0], columns[1], values, with_packed(block, packed), shape, columns[2], line)
        for position, its_line in zip(given.positions.tolist(), given.lines.tolist(), strict=True):
            self.line_of[side, position] = its_line
        self.join.take(side, given)

    def cut(self, line: int | None) -> None:
        """Take what is complete up to a line."""
        join, joined = self.join, self.joined
        join.settle(line)
        joined.count(join.pending.take_counted(line))
        series = join.window.slow.series
        for model, some in join.pending.by_model(line):
            outcomes = [] if some.outcomes is None else list(self.rows_of(some.outcomes))
            for its_line, row in outcomes:
                assert self.last_cut < its_line <= (its_line if line is None else line)
                assert its_line == max(self.line_of[PREDICTIONS, row[0]], self.line_of[FEEDBACK, row[2]])
            joined.outcomes += [row for _, row in outcomes]
            assert sorted(outcomes, key=lambda each: each[0]) == outcomes, "in the order of lines"
            if some.seen is not None:
                for its_line, cell, position, at, _ in some.seen.columns.T.tolist():
                    assert its_line == self.line_of[PREDICTIONS, position]
                    code, values = some.seen.cells.key_of(cell)
                    assert series[code].model == model
                    joined.seen.append((position, at, repr(series[code]), repr(values)))
            joined.seen += [seen_of(series, each) for each in some.unlabelled]
            joined.pairs += [(pair.live.position, pair.shadow.position, pair.labelled_at) for pair in some.pairs]
            joined.seen_pairs += [(live.position, shadow.position) for live, shadow in some.seen_pairs]
        joined.count(join.tally.take())
        self.last_cut = self.last_cut if line is None else line

    def rows_of(self, rows: Any) -> Iterator[tuple[int, tuple[Any, ...]]]:
        series = self.join.window.slow.series
        mores = [(None, None, None)] * rows.columns.shape[1] if rows.more is None else rows.more.tolist()
        answers = zip(rows.output, rows.score, rows.truth, mores, strict=True)
        for column, (output, score, truth, more) in zip(rows.columns.T.tolist(), answers, strict=True):
            code, values = rows.cells.key_of(column[CELL])
            assert len({series[code].model}) == 1
            source = rows.sources[column[SOURCE]]
            times = (column[POSITION], column[AT], column[LABELLED_BY], column[LABELLED_AT], source)
            answer = (repr(output), repr(score), repr(truth))
            used = more_of(series, code, *more)
            yield column[LINE], (*times, repr(series[code]), repr(values), *answer, used, column[UNIT])

    def reload(self) -> None:
        self.join.settle()
        saved = unpack(pack(self.join.save()), SavedJoin)
        self.join = self.new_join()
        self.join.load(saved)


def in_blocks(
    rng: random.Random,
    logs: Sequence[list[Recorded]],
    rules: dict[str, WindowRule],
    default: WindowRule,
    *,
    reload: bool,
) -> tuple[Joined, Blocks]:
    """Give logs in random blocks, with cuts, evictions and snapshots between them."""
    blocks = Blocks(rules, rng.randrange(2, 9), default)
    left, clocks, most = [list(log) for log in logs], [-1, -1], rng.choice([1, 3, 20, 200])
    while any(left):
        side = rng.choice([number for number, log in enumerate(left) if log])
        count = rng.randrange(1, most + 1)
        some, left[side] = left[side][:count], left[side][count:]
        blocks.give(side, some)
        clocks[side] = some[-1].at
        if rng.random() < 0.3:
            blocks.cut(rng.choice([None, (rng.randrange(blocks.lines) << INDEX_BITS) - 1]))
        if rng.random() < 0.3:
            blocks.join.window.evict(*clocks)
        if reload and rng.random() < 0.3:
            blocks.reload()
    blocks.join.window.evict(*clocks)
    blocks.join.pending.take_counts(shared=False)
    blocks.cut(None)
    return blocks.joined, blocks


def check_seed(
    seed: int, rules: dict[str, WindowRule], *, reload: bool, default: WindowRule = DEFAULT
) -> tuple[Joined, Blocks]:
    rng = random.Random(seed)
    packed, models = rng.random() < 0.5, ["m", *rules, "other"]
    logs = [log_of(rng, models, side, packed=packed) for side in (PREDICTIONS, FEEDBACK)]
    expected = one_by_one(rng, logs, rules, default).everything()
    joined, blocks = in_blocks(rng, logs, rules, default, reload=reload)
    found = joined.everything()
    for name, rows in expected.items():
        assert found[name] == rows, (seed, name)
    return joined, blocks


@pytest.mark.parametrize("rules", [BY_TRUTH, BY_MORE], ids=["by truth", "by more"])
@pytest.mark.parametrize("reload", [False, True], ids=["at once", "with snapshots"])
def test_blocks_join_and_count_as_one_record_after_the_other(rules: dict[str, WindowRule], reload: bool) -> None:
    counts: Counter[str] = Counter()
    outcomes = pairs = 0
    for seed in range(some_of(40)):
        joined, _ = check_seed(seed, rules, reload=reload)
        outcomes += len(joined.outcomes)
        pairs += len(joined.pairs)
        for (reason, _, _), count in joined.counts.items():
            counts[reason] += count
    assert outcomes > some_of(500)
    assert pairs > some_of(20)
    repeated = "DUPLICATE", "CONFLICTING_PREDICTION", "DUPLICATE_FEEDBACK"
    for reason in (*repeated, "LATE_FEEDBACK", "UNMATCHED_FEEDBACK", "FUTURE_TS"):
        assert counts[reason] > some_of(20), counts


@pytest.mark.parametrize("reload", [False, True], ids=["at once", "with snapshots"])
def test_blocks_revise_labels_as_one_record_after_the_other(reload: bool) -> None:
    counts: Counter[str] = Counter()
    revised = 0
    for seed in range(30):
        joined, _ = check_seed(seed, REVISED, reload=reload, default=REVISED_DEFAULT)
        revised += len(joined.outcomes) - len({row[0] for row in joined.outcomes})
        for (reason, _, _), count in joined.counts.items():
            counts[reason] += count
    assert revised > 30
    assert all(counts[reason] for reason in ("REVISED_LATE", "DUPLICATE_FEEDBACK", "CONFLICTING_FEEDBACK")), counts


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("rules", [BY_TRUTH, BY_MORE], ids=["by truth", "by more"])
def test_blocks_keep_of_a_request_what_one_record_after_the_other_does(
    monkeypatch: pytest.MonkeyPatch, rules: dict[str, WindowRule], most: int
) -> None:
    """Limits so low, and intervals so long, that most requests have more than is kept of them."""
    monkeypatch.setattr(pending_predictions, "VERSIONS_MAX", most)
    monkeypatch.setattr(pending_predictions, "UNLISTED_MAX", most)
    monkeypatch.setattr(early_labels, "LABELS_MAX", most)
    refused = outcomes = 0
    for seed in range(some_of(40)):
        joined, _ = check_seed(2_000 + seed, rules, reload=seed % 2 == 0, default=LONG if seed % 3 else DEFAULT)
        refused += sum(count for (reason, _, _), count in joined.counts.items() if reason == "REQUEST_LIMIT")
        outcomes += len(joined.outcomes)
    assert refused > some_of(20)
    assert outcomes > some_of(200)


def test_full_tables_of_cells_and_sources_change_nothing_that_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELLS_MAX", 4)
    monkeypatch.setattr(slice_values, "SOURCES_MAX", 2)
    monkeypatch.setattr(series, "CROWDED_LEAST", 3)
    for seed in range(some_of(40)):
        check_seed(1_000 + seed, BY_TRUTH, reload=seed % 2 == 0)


def test_key_of_two_models_keeps_the_engagement_for_the_one_that_is_judged_by_it() -> None:
    """A label with a truth and an engagement is joined with a block; the other model's prediction comes after it."""
    rules = {"used": WindowRule(10, 3, (), truth=False, engagement=True)}
    values = [b'{"id":"a","model":"%b","version":"v1","output":1}' % model for model in (b"m", b"used")]
    label = b'{"id":"a","truth":1,"engagement":0.25}'
    blocks = Blocks(rules, 8)
    blocks.give(PREDICTIONS, [Recorded(0, START, START, values[0], [values[0]])])
    blocks.give(FEEDBACK, [Recorded(0, START, START, label, [label])])
    blocks.give(PREDICTIONS, [Recorded(1, START, START, values[1], [values[1]])])
    blocks.cut(None)
    assert [(row[0] >> INDEX_BITS, row[-2]) for row in blocks.joined.outcomes] == [
        (0, "(None, None, None)"),
        (1, "(None, 0.25, None)"),
    ]
