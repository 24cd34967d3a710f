"""What `unship check` says of labels: those that come late, find nothing, or come sooner where the answer was wrong."""

import json
from collections.abc import Iterable

from console.checks.installation import Line
from console.checks.labels import Delays, delays_in, label_lines
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.join.partition import Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of
from streams.ledger.records import Batch, Record
from streams.pipeline import configuration_record
from streams.recordings.lines import Taken
from tests.pipelines import source_records_of
from tests.sites import Memory

HOUR_MS = 3_600_000
MATURE = parse("models: {m: {labels: {horizon: 2h, mature_after: 1h}}}")
AT_ONCE = parse("models: {m: {labels: {horizon: 2h, mature_after: 0s}}}")


def lines_of(config: Config, delays: Delays, **rejected: int) -> list[Line]:
    joined = len(delays.right) + len(delays.wrong)
    return label_lines(config, {"m": delays}, {"m": joined}, rejected)


def warned(lines: Iterable[Line]) -> list[str]:
    assert all(line.fix for line in lines if line.level != "ok")
    return [line.found for line in lines if line.level == "warning"]


def test_labels_that_come_in_time_give_one_good_line() -> None:
    (line,) = lines_of(MATURE, Delays([60_000] * 150, [90_000] * 150))
    assert (line.level, line.found) == ("ok", "300 newest outcomes of 1 models: half within 2m, 99 % within 2m")


def test_few_outcomes_say_nothing() -> None:
    (line,) = lines_of(AT_ONCE, Delays([0] * 49, [HOUR_MS] * 50))
    assert (line.level, line.found) == ("ok", "too few outcomes yet to measure their delay")


def test_labels_after_the_horizon_are_counted_beside_those_that_were_used() -> None:
    (found,) = warned(lines_of(MATURE, Delays([0] * 97, []), LATE_FEEDBACK=3))
    assert found.startswith("3 of 100 arrived after the horizon (at most 7d)")


def test_labels_that_take_nearly_the_horizon_are_warned_of() -> None:
    assert warned(lines_of(MATURE, Delays([HOUR_MS] * 200, []))) == []
    (found,) = warned(lines_of(MATURE, Delays([HOUR_MS] * 200 + [7 * HOUR_MS // 4] * 3, [])))
    assert found == "m: 1 % of the labels took 2h or more, and the horizon is 2h"


def test_wrong_answers_labelled_sooner_are_warned_of_where_nothing_matures() -> None:
    sooner = Delays([600_000] * 50, [60_000] * 50)
    (found,) = warned(lines_of(AT_ONCE, sooner))
    assert "half of the wrong answers are labelled within 60s, of the right ones within 10m" in found
    assert warned(lines_of(MATURE, sooner)) == []
    (found,) = warned(lines_of(AT_ONCE, Delays([60_000] * 50, [61_000] * 50)))
    assert "half of the wrong answers" not in found


def test_night_that_arrives_label_by_label_is_warned_of_where_nothing_matures() -> None:
    (line,) = lines_of(AT_ONCE, Delays([60_000] * 100, []))
    assert line.level == "warning"
    assert line.found == (
        "m: mature_after is 0s, so outcomes count as labels come: a night that arrives label by label, in a sorted "
        "order, cannot be distinguished from a change"
    )
    assert line.fix == "set labels.mature_after of m, to 60s for example"
    assert warned(lines_of(MATURE, Delays([60_000] * 100, []))) == []


def test_labels_that_find_nothing_or_come_unripe_are_warned_of_if_they_are_many() -> None:
    delays = Delays([0] * 1_000, [])
    assert warned(lines_of(MATURE, delays, UNMATCHED_FEEDBACK=50, AFTER_MATURITY=50)) == []
    alone, unripe = warned(lines_of(MATURE, delays, UNMATCHED_FEEDBACK=100, AFTER_MATURITY=101))
    assert alone.startswith("100 of 1,201 matched no prediction")
    assert unripe.startswith("101 of 1,201 arrived after mature_after")


def test_delays_are_those_of_the_newest_batches_of_a_ledger() -> None:
    reader = SourceReader(AT_ONCE, 0, Position(1))
    predictions = [{"id": f"p{i}", "model": "m", "version": "v1", "output": i % 2} for i in range(4)]
    reader.give(
        0, source_records_of([Raw(i, 1_000, json.dumps(event).encode()) for i, event in enumerate(predictions)])
    )
    reader.give(
        1, source_records_of([Raw(i, 1_500 + i, json.dumps({"id": f"p{i}", "truth": 0}).encode()) for i in range(4)])
    )
    reader.advance((True, True))
    records: list[Record] = [configuration_record(AT_ONCE), *reader.flush()]
    assert isinstance(records[1], Batch)
    taken = [Taken("ledger", 0, i, i, None, entry_of(record).value) for i, record in enumerate(records)]
    assert delays_in(Memory(taken)) == {"m": Delays([500, 502], [501, 503])}
