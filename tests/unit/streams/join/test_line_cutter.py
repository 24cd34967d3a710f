"""Cuts and ticks depend on the accepted lines and the clock, on nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.config.parse import parse
from streams.config.resolved import Config
from streams.config.units import DAY_MS
from streams.join.line_cutter import COUNTS_MAX
from streams.join.line_cutter import CUT_RECORDS as CUT_LINES
from streams.ledger.encoding import pack, unpack
from streams.ledger.records import Batch, Deployed, Operated, Part, Record, ReplicaFacts, Tick
from streams.pipeline import SavedPipeline
from tests.pipelines import Run, parts_of, run
from unship.codec import encode_line
from unship.events import Ack, Deployment, Event, Feedback, OperatorAct, Prediction

START = 1_772_409_600_000
AT_ONCE = parse("models: {m: {losses: [zero_one, brier], slices: {by: [country]}}}")
#: Twenty seconds of maturity, so cohorts of one second.
MATURING = parse("models: {m: {losses: [zero_one], labels: {mature_after: 20s}}}")


def line(event: Event) -> bytes:
    return encode_line(event) + b"\n"


def predicted(ms: int | None, id: str, version: str = "v1", model: str = "m", output: Any = 1, **fields: Any) -> bytes:
    ts = None if ms is None else START + ms
    return line(Prediction(id=id, model=model, version=version, output=output, ts=ts, **fields))


def labelled(ms: int | None, id: str, truth: Any = 1, **fields: Any) -> bytes:
    return line(Feedback(id=id, truth=truth, ts=None if ms is None else START + ms, **fields))


def deployed(ms: int | None, version: str, status: Any = "live", **fields: Any) -> bytes:
    ts = None if ms is None else START + ms
    return line(Deployment(model=fields.pop("model", "m"), version=version, status=status, ts=ts, **fields))


def records_of(lines: Iterable[bytes], config: Config = AT_ONCE) -> list[Record]:
    """Drive the whole pipeline, because ticks come from what the fold waits for; the last cut is the end of input."""
    return run(config, lines).records


def ticks_of(records: Sequence[Record]) -> list[int]:
    return [record.clock - START for record in records if isinstance(record, Tick)]


def content(record: Record) -> Any:
    """Return what a record says apart from where its lines stood: no line numbers, no digest of raw bytes."""
    if isinstance(record, Tick):
        return ("tick", record.clock)
    if isinstance(record, Deployed | Operated):
        return (
            type(record).__name__,
            record.clock,
            msgspec.to_builtins(msgspec.structs.replace(record.event, at=None)),
        )
    assert isinstance(record, Batch), record
    return (record.clock, [rows_of(part) for part in record.parts])


def rows_of(part: Part) -> dict[str, Any]:
    rows = part.outcomes
    plain = {
        "model": part.model,
        "arms": [(arm.version, arm.role) for arm in part.arms],
        "seen": [part.seen.arm.tolist(), part.seen.predicted_at.tolist()],
        "slices": [(column.values, column.codes.tolist()) for column in rows.slices],
        "source": (rows.source.values, rows.source.codes.tolist()),
        "order": np.argsort(rows.position).tolist(),
        "losses": rows.losses.tolist(),
    }
    for name in ("arm", "predicted_at", "labelled_at"):
        plain[name] = getattr(rows, name).tolist()
    if part.pairs is not None:
        pairs = part.pairs
        plain["pairs"] = [
            pairs.shadow.tolist(),
            pairs.live.tolist(),
            pairs.predicted_at.tolist(),
            pairs.excess.tolist(),
        ]
    return plain


def contents(records: Sequence[Record]) -> list[Any]:
    # Acks among the noise leave records of their own, which move no other; what only counts has no row.
    rows = [record for record in records if not isinstance(record, Batch) or record.parts]
    return [content(record) for record in rows if not isinstance(record, ReplicaFacts)]


def seen_in(records: Sequence[Record]) -> list[int]:
    return [sum(part.seen.arm.size for part in record.parts) for record in records if isinstance(record, Batch)]


# Where cuts fall


def test_cut_falls_where_the_clock_enters_a_new_second() -> None:
    lines = [predicted(at, f"p{at}") for at in (0, 400, 999, 1_000, 1_999, 2_000)]
    assert seen_in(records_of(lines)) == [3, 2, 1]


def test_cut_falls_after_4096_accepted_lines() -> None:
    lines = [predicted(0, f"p{i}") for i in range(CUT_LINES + 1)]
    records = records_of(lines)
    assert seen_in(records) == [CUT_LINES, 1]
    assert [record.end[0] for record in records if isinstance(record, Batch)] == [CUT_LINES, CUT_LINES + 1]


def test_lines_that_put_nothing_into_the_ledger_do_not_count_towards_a_cut() -> None:
    lines = [predicted(0, "p0")]
    lines += [predicted(0, "p0") for _ in range(CUT_LINES // 4)]
    lines += [labelled(0, "unknown") for _ in range(CUT_LINES // 4)]
    lines += [b"{not json\n", *(predicted(0, f"q{i}") for i in range(CUT_LINES - 1)), predicted(0, "last")]
    assert seen_in(records_of(lines)) == [CUT_LINES, 1]


def test_truth_counts_towards_a_cut_only_if_it_answers() -> None:
    half = CUT_LINES // 2
    lines = [predicted(0, f"p{i}") for i in range(half)] + [labelled(0, f"p{i}") for i in range(half)]
    lines += [labelled(0, f"p{i}") for i in range(half)] + [predicted(0, "last")]
    assert [part.outcomes.arm.size for part in parts_of(records_of(lines))] == [half, 0]


def test_each_model_of_a_cut_has_its_own_part_in_the_order_of_names() -> None:
    lines = [predicted(0, "p", model="n"), predicted(0, "p", model="m"), labelled(1, "p", 0)]
    (batch,) = records_of(lines)
    assert [(part.model, part.outcomes.arm.size) for part in parts_of([batch])] == [("m", 1), ("n", 1)]


def test_deployments_and_acts_stand_behind_what_came_before_them() -> None:
    act = OperatorAct(act="hold", model="m", reason="x", by="me", ts=START + 2)
    lines = [
        deployed(0, "v1"),
        predicted(1, "a"),
        deployed(1, "v2", "holdback"),
        predicted(2, "b"),
        line(act),
        predicted(2, "c"),
    ]
    records = records_of(lines)
    assert [type(record) for record in records] == [Deployed, Batch, Deployed, Batch, Operated, Batch]
    copied = [record.event.at for record in records if isinstance(record, Deployed | Operated)]
    assert [at[:3] for at in copied if at] == [("deployments", 0, 0), ("deployments", 0, 2), ("operator", 0, 4)]
    assert [record.end[0] for record in records if isinstance(record, Batch)] == [2, 4, 6]


def test_lines_of_other_kinds_leave_nothing_in_the_ledger() -> None:
    assert records_of([b'{"type":"decision","id":"d"}\n', b'{"type":"command"}\n']) == []


def test_ack_that_says_what_is_known_moves_no_cut() -> None:
    ack = line(Ack(model="m", replica="r", boot="b", epoch=(0, 0, 0), stage="serving", serving="v1", ts=START))
    records = records_of([ack, *(predicted(0, f"p{i}") for i in range(CUT_LINES)), *[ack] * 50, predicted(0, "last")])
    assert [type(record) for record in records] == [ReplicaFacts, Batch, Batch]
    assert seen_in(records) == [CUT_LINES, 1]


def test_end_of_input_folds_what_was_joined_and_is_no_tick() -> None:
    lines = [predicted(0, "a"), labelled(10, "a")]
    records = records_of(lines, MATURING)
    assert [type(record) for record in records] == [Batch]
    assert records_of([], MATURING) == []


# The record's content


def test_record_carries_the_columns_of_what_was_joined() -> None:
    lines = [
        predicted(0, "a", output=1, score=0.75, slices={"country": "DE"}),
        predicted(5, "b", output=0, score=0.25, version="v2", role="holdback", slices={"country": "FR"}),
        predicted(6, "c"),
        labelled(7, "b", 1, source="desk"),
        labelled(8, "a", 1),
    ]
    (part,) = parts_of(records_of(lines))
    record = part.outcomes
    assert [(arm.version, arm.role) for arm in part.arms] == [("v1", "live"), ("v2", "holdback")]
    assert part.seen.arm.tolist() == [0, 1, 0]
    assert (part.seen.predicted_at - START).tolist() == [0, 5, 6]
    assert part.seen.position.tolist() == [0, 1, 2]
    assert (record.position.tolist(), record.labelled_by.tolist()) == ([1, 0], [3, 4])
    assert record.arm.tolist() == [1, 0]
    assert (record.predicted_at - START).tolist() == [5, 0]
    assert (record.labelled_at - START).tolist() == [7, 8]
    assert record.losses.tolist() == [[1.0, 0.0], [0.5625, 0.0625]]
    assert [record.slices[0].values[code] for code in record.slices[0].codes] == ["FR", "DE"]
    assert [record.source.values[code] for code in record.source.codes] == ["desk", "default"]


def test_shadow_and_live_travel_as_one_row() -> None:
    lines = [
        predicted(0, "a", output=1, score=1.0),
        predicted(0, "a", "v2", output=0, score=0.5, role="shadow"),
        labelled(1, "a", 1),
    ]
    (part,) = parts_of(records_of(lines))
    assert part.pairs is not None
    assert [part.arms[i].role for i in (part.pairs.live[0], part.pairs.shadow[0])] == ["live", "shadow"]
    np.testing.assert_allclose(part.pairs.excess, [[-1.0], [-0.25]])
    assert (part.pairs.position.tolist(), part.pairs.later.tolist(), part.pairs.labelled_by.tolist()) == ([0], [1], [2])
    assert part.outcomes.arm.size == 2


def test_label_after_maturity_is_counted_and_not_carried() -> None:
    lines = [predicted(0, "a"), predicted(0, "b"), labelled(20_000, "a"), labelled(20_001, "b"), predicted(30_000, "c")]
    made = run(MATURING, lines)
    assert sum(part.outcomes.arm.size for part in parts_of(made.records)) == 1
    assert made.counts == {"AFTER_MATURITY": 1}


def test_unusable_truths_and_missing_scores_are_counted_and_carried_as_nothing() -> None:
    lines = [predicted(0, "a"), predicted(0, "b", score=0.5), labelled(1, "a", 1), labelled(1, "b", [1, 2])]
    made = run(AT_ONCE, lines)
    (part,) = parts_of(made.records)
    np.testing.assert_array_equal(np.isnan(part.outcomes.losses), [[False, True], [True, True]])
    assert made.counts == {"UNUSABLE_TRUTH": 1, "MISSING_SCORE": 2}


def test_engagement_alone_is_counted_as_unusable() -> None:
    lines = [predicted(0, "a"), line(Feedback(id="a", engagement=0.5, ts=START))]
    assert run(AT_ONCE, lines).counts == {"UNUSABLE_TRUTH": 1}


# Ticks


def test_tick_comes_when_a_cohort_is_due_before_the_first_later_line() -> None:
    lines = [predicted(1_200, "a"), predicted(3_000, "b"), predicted(21_999, "c"), predicted(22_000, "d")]
    records = records_of(lines, MATURING)
    # The cohort [1000, 2000) closes 20 s after its end.
    kinds = [(type(record).__name__, record.clock - START) for record in records]
    assert kinds[-2] == ("Tick", 22_000)
    assert isinstance(records[-1], Batch)
    assert ticks_of(records) == [22_000]


def test_every_due_cohort_has_exactly_one_tick_however_late_the_next_line_comes() -> None:
    lines = [predicted(at, f"p{at}") for at in (0, 100, 1_500, 5_000)]
    lines += [labelled(5_001, "p0"), predicted(100_000, "late")]
    assert ticks_of(records_of(lines, MATURING)) == [21_000, 22_000, 26_000]


def test_outcomes_before_a_silence_are_folded_at_their_own_time() -> None:
    """What the next line's time is has no bearing on when the cohorts before it closed."""
    lines = [predicted(500, "a"), labelled(700, "a")]
    for silence in (30_000, 3_600_000):
        records = records_of([*lines, predicted(silence, "b")], MATURING)
        assert [(type(r).__name__, r.clock - START) for r in records[:2]] == [("Batch", 700), ("Tick", 21_000)], silence


def test_models_of_one_maturity_share_a_tick() -> None:
    config = parse("defaults: {labels: {mature_after: 20s}}")
    lines = [predicted(at, f"p{at}", model=model) for at in (0, 1_500) for model in "mn"] + [predicted(90_000, "c")]
    ticks = ticks_of(records_of(lines, config))
    assert ticks == [21_000, 22_000]


def test_clock_that_is_advanced_without_a_line_ticks_what_is_due() -> None:
    made = Run(MATURING)
    made.take([predicted(500, "a"), labelled(700, "a")])
    records = made.advance(START + 60_000)
    assert [(type(r).__name__, r.clock - START) for r in records] == [
        ("Batch", 700),
        ("Tick", 21_000),
        ("Tick", 60_000),
    ]
    assert made.advance(START + 60_000) == []


# Times


def test_lone_jump_into_the_future_is_counted_and_closes_nothing() -> None:
    far = 3 * DAY_MS
    lines = [predicted(0, "a"), predicted(far, "jump"), predicted(10, "b"), labelled(20, "a")]
    made = run(MATURING, lines)
    assert made.counts == {"FUTURE_TS": 1}
    assert made.now == START + 20


def test_second_line_of_a_jump_confirms_the_first_and_both_move_the_clock() -> None:
    far = 3 * DAY_MS
    lines = [predicted(0, "a"), predicted(far, "jump"), predicted(far + 1, "b")]
    made = run(MATURING, lines)
    assert made.counts == {}
    assert made.now == START + far + 1


def test_line_without_a_time_before_any_time_is_counted() -> None:
    made = run(AT_ONCE, [predicted(None, "a"), predicted(0, "b"), predicted(None, "c")])
    assert made.counts == {"BAD_TIME": 1}
    assert seen_in(made.records) == [2]


def test_place_in_the_log_gives_the_time_and_a_far_own_time_is_refused() -> None:
    def at(append: int) -> Any:
        return ("predictions", 0, append, START + append)

    lines = [
        predicted(9_999_999, "a", at=at(5)),
        predicted(0, "b", at=at(70)),
        predicted(80 + DAY_MS + 1, "refused", at=at(80)),
        labelled(90, "a", at=("feedback", 0, 0, START + 75)),
    ]
    made = run(parse(""), lines)
    (part,) = parts_of(made.records)
    assert made.counts == {"FUTURE_TS": 1}
    assert (part.outcomes.predicted_at - START).tolist() == [5]
    # The refused line still moved the source clock; a label's time is that of its own log.
    assert made.now == START + 80
    assert (part.outcomes.labelled_at - START).tolist() == [75]


# Deployments


def test_repeated_deployment_is_counted_and_dropped() -> None:
    lines = [
        deployed(0, "v1"),
        deployed(0, "v1"),
        deployed(5, "v2", "shadow"),
        deployed(5, "v2", "shadow"),
        deployed(0, "v1"),
    ]
    made = run(AT_ONCE, lines)
    assert [record.event.version for record in made.records if isinstance(record, Deployed)] == ["v1", "v2"]
    assert made.counts == {"DUPLICATE_DEPLOYMENT": 3}


def test_deployment_at_another_time_or_of_another_status_is_no_repeat() -> None:
    lines = [deployed(0, "v1"), deployed(1, "v1"), deployed(1, "v1", "holdback"), deployed(1, "v1", model="n")]
    assert len(records_of(lines)) == 4


def test_deployment_without_a_time_takes_the_time_it_arrives_at_so_a_later_one_is_no_repeat() -> None:
    """Going back to v1 by deploying it again must not be mistaken for the retry of its first deployment."""
    lines = [
        predicted(0, "a"),
        deployed(None, "v1"),
        predicted(60_000, "b"),
        deployed(None, "v2"),
        predicted(120_000, "c"),
    ]
    lines += [deployed(None, "v1")]
    taken = [record.event.version for record in records_of(lines) if isinstance(record, Deployed)]
    assert taken == ["v1", "v2", "v1"]


# Noise


def noisy(clean: Sequence[bytes], rng: random.Random) -> list[bytes]:
    """Put lines between that are refused, unknown or repeated; none of them moves the clock."""
    lines: list[bytes] = []
    answered: list[bytes] = []
    for original in clean:
        for _ in range(rng.randrange(4)):
            kind = rng.randrange(6)
            if kind == 0:
                lines.append(
                    rng.choice(
                        [
                            b"{oops\n",
                            b"\n",
                            b'{"type":"prediction"}\n',
                            b'{"type":"nothing"}\n',
                            b"\xff\n",
                            b"[[[[[[[[[[[[\n",
                        ]
                    )
                )
            elif kind == 1:
                lines.append(labelled(None, f"unknown-{rng.randrange(50)}", rng.randrange(2)))
            elif kind == 2 and answered:
                lines.append(rng.choice(answered))
            elif kind == 3:
                lines.append(line(Ack(model="m", replica="r", boot="b", epoch=(0, 0, 0), stage="serving")))
            elif kind == 4:
                lines.append(b'{"type":"decision","id":"d"}\n')
            elif answered:
                lines.append(labelled(None, msgspec.json.decode(rng.choice(answered))["id"], "another truth"))
        lines.append(original)
        if b'"feedback"' in original or b'"deployment"' in original:
            answered += [original] if b'"feedback"' in original else []
    return lines


def traffic(seed: int, count: int, step: int) -> list[bytes]:
    """Make a small recording: two versions, a shadow, slices, labels out of order."""
    rng = random.Random(seed)
    events: list[tuple[int, bytes]] = []
    for i in range(count):
        at = i * step + rng.randrange(step)
        version, role = rng.choice([("v1", "live"), ("v1", "live"), ("v0", "holdback")])
        fields: dict[str, Any] = {"slices": {"country": rng.choice(["DE", "FR"])}, "score": rng.randrange(8) / 8}
        events.append((at, predicted(at, f"p{i}", version, role=role, output=rng.randrange(2), **fields)))
        if role == "live" and rng.random() < 0.4:
            events.append((at, predicted(at, f"p{i}", "v2", role="shadow", output=rng.randrange(2), **fields)))
        if rng.random() < 0.9:
            later = at + rng.choice([1, 50, 900, 4_000, 25_000])
            events.append((later, labelled(later, f"p{i}", rng.randrange(2), source=rng.choice(["a", "b"]))))
    events.append((0, deployed(0, "v1")))
    return [data for _, data in sorted(events)]


@pytest.mark.parametrize("config", [AT_ONCE, MATURING], ids=["at once", "maturing"])
@pytest.mark.parametrize("seed", range(4))
def test_noise_between_the_lines_leaves_the_ledger_as_it_was(config: Config, seed: int) -> None:
    clean = traffic(seed, 150, 120)
    lines = noisy(clean, random.Random(seed))
    assert len(lines) > len(clean) + 100
    assert contents(records_of(lines, config)) == contents(records_of(clean, config))


@pytest.mark.parametrize("config", [AT_ONCE, MATURING], ids=["at once", "maturing"])
def test_noise_that_moves_the_clock_between_the_lines_leaves_the_ledger_as_it_was(config: Config) -> None:
    """Unknown truths with times of their own stand between the same accepted lines, so every record says the same."""
    clean = traffic(9, 60, 2_500)
    lines = []
    for before, after in zip(clean, [*clean[1:], clean[-1]], strict=True):
        lines.append(before)
        low, high = (msgspec.json.decode(data)["ts"] - START for data in (before, after))
        if high > low + 1:
            lines.append(labelled((low + high) // 2, "unknown"))
    assert len(lines) > len(clean) + 30
    assert contents(records_of(lines, config)) == contents(records_of(clean, config))


@pytest.mark.parametrize("seed", range(3))
def test_every_noisy_line_is_counted_under_its_reason(seed: int) -> None:
    rng = random.Random(seed)
    lines, expected = [predicted(0, "first")], {"BAD_JSON": 0, "DUPLICATE": 0, "CONFLICTING_PREDICTION": 0}
    for i in range(200):
        lines.append(predicted(i, f"p{i}"))
        kind = rng.choice(list(expected))
        expected[kind] += 1
        lines.append(
            {
                "BAD_JSON": b"{\n",
                "DUPLICATE": predicted(i, f"p{i}"),
                "CONFLICTING_PREDICTION": predicted(i, f"p{i}", output=0),
            }[kind]
        )
    assert run(AT_ONCE, lines).counts == expected


# Raw bytes


def test_long_noise_is_digested_in_pieces_and_every_byte_still_matters() -> None:
    noise = [b"{noise %d %b\n" % (i, b"x" * 150) for i in range(3 * CUT_LINES)]
    lines = [*noise, predicted(0, "a")]
    digests = set()
    for place in (None, 0, CUT_LINES, 2 * CUT_LINES, 3 * CUT_LINES - 1):
        changed = list(lines)
        if place is not None:
            changed[place] = changed[place].replace(b"noise", b"Noise")
        (record,) = [record for record in records_of(changed) if isinstance(record, Batch)]
        assert record.end[0] == 3 * CUT_LINES + 1
        digests.add(record.source_digest)
    assert len(digests) == 5


def test_any_flipped_byte_changes_a_digest() -> None:
    lines = traffic(3, 25, 300)
    lines[10:10] = [b"{oops\n", labelled(None, "unknown")]
    lines.append(predicted(90_000, "end"))
    rng = random.Random(1)

    def digests(of: Sequence[bytes]) -> list[Any]:
        # A deployment is copied whole, and has no digest.
        return [getattr(record, "source_digest", record) for record in records_of(of, MATURING)]

    clean = digests(lines)
    for _ in range(120):
        changed = list(lines)
        place = rng.randrange(len(lines))
        data = bytearray(changed[place])
        data[rng.randrange(len(data.rstrip()))] ^= 1 << rng.randrange(8)
        changed[place] = bytes(data)
        assert digests(changed) != clean, changed[place]


def test_ranges_cover_all_lines_without_gap_or_overlap() -> None:
    lines = noisy(traffic(5, 80, 200), random.Random(5))
    # Lines of other kinds belong to their own readers and have no number here.
    lines = [data for data in lines if b'"decision"' not in data]
    batches = [record for record in records_of(lines) if isinstance(record, Batch)]
    assert batches[0].base == (0, 0)
    assert all(second.base == first.end for first, second in pairwise(batches))
    assert len(lines) - 1 <= max(batches[-1].end) <= len(lines)


# Stopping and going on


@pytest.mark.parametrize("config", [AT_ONCE, MATURING], ids=["at once", "maturing"])
def test_pipeline_saved_after_any_line_goes_on_as_if_never_stopped(config: Config) -> None:
    lines = noisy(traffic(6, 40, 150), random.Random(6))
    whole = run(config, lines)
    for stop in range(0, len(lines), 7):
        first, second = Run(config), Run(config)
        first.take(lines[:stop])
        saved = unpack(pack(first.pipeline.save()), SavedPipeline)
        second.pipeline = type(second.pipeline)(config)
        second.pipeline.load(saved)
        second.take(lines[stop:])
        second.rest()
        steps = first.steps + second.steps
        assert [step.entry.value for step in steps] == [step.entry.value for step in whole.steps], stop
        assert second.counts == whole.counts, stop


def test_model_that_only_the_defaults_configure_is_cut_every_second_where_all_listed_ones_mature() -> None:
    config = parse("models: {other: {labels: {mature_after: 1d, horizon: 7d}}}")
    lines = [predicted(500 * i, f"p{i}") for i in range(10)]
    clocks = [record.clock for record in run(config, lines).records if isinstance(record, Batch)]
    assert clocks == [START + 1_000 * second + 500 for second in range(5)]


def test_many_rejected_lines_are_counted_in_several_batches() -> None:
    lines = [predicted(0, "p"), predicted(0, "q"), *[b"{}\n"] * (2 * COUNTS_MAX)]
    batches = [record for record in run(AT_ONCE, lines).records if isinstance(record, Batch)]
    assert max(batch.counted.change.size for batch in batches) == COUNTS_MAX
    assert sum(batch.counted.change.size for batch in batches) == 2 * COUNTS_MAX
