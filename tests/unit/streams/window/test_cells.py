"""Cells: predictions of one series with the same slice values, and what happens where a table or a limit is full."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streams.ledger.encoding import pack, unpack
from streams.window import cells, slice_values
from streams.window.batch_window import BatchWindow
from streams.window.cells import Cells, SavedCells
from streams.window.decoding import source_decoders
from streams.window.joined import SOURCE
from streams.window.records import Records
from streams.window.series import Series, SeriesTable, WindowRule
from streams.window.tally import Tally
from unship.codec import encode_line
from unship.events import Feedback, Prediction

RULE = WindowRule(100, 10, ("country", "vip"))
OTHER = WindowRule(50, 5, ())
DIMENSIONS = ("country", "vip", "plan")


def predictions(*fields: dict[str, Any]) -> list[bytes]:
    given: list[dict[str, Any]] = [
        {"id": f"p{i}", "model": "m", "version": "v", "output": 1} | f for i, f in enumerate(fields)
    ]
    return [encode_line(Prediction(**each)) for each in given]


def coded(table: Cells, *fields: dict[str, Any]) -> list[int]:
    decoder = source_decoders()[0]
    values = predictions(*fields)
    items = decoder.decode(values).items
    found: list[int] = table.codes(decoder.shape_of("prediction"), items).tolist()
    return found


def records_of(decoder: Any, kind: str, values: list[bytes], first: int = 0, at: int = 0) -> Records:
    block, places = decoder.decode(values), np.arange(first, first + len(values))
    return Records(block.items, block.odd, decoder.shape_of(kind), values, places, np.full(len(values), at), places)


def test_true_and_1_are_two_cells_and_keep_their_types() -> None:
    table = Cells(SeriesTable({}, RULE), DIMENSIONS)
    codes = coded(table, *({"slices": {"vip": vip}} for vip in (1, True, 1, "1", False, 0, True)))
    values = [table.key_of(code)[1][1] for code in codes]
    assert [repr(value) for value in values] == ["1", "True", "1", "'1'", "False", "0", "True"]
    assert codes[0] == codes[2] != codes[1] == codes[6]
    assert [repr(value) for value in table.slice_of("vip", np.array(codes)).values] == [
        "1",
        "True",
        "'1'",
        "False",
        "0",
    ]


def test_cell_is_the_same_whatever_fields_the_block_has() -> None:
    table = Cells(SeriesTable({}, RULE), DIMENSIONS)
    (plain,) = coded(table, {})
    assert coded(table, {}, {"role": "shadow"}, {"slices": {"country": "DE", "other": 1}})[0] == plain
    (german,) = coded(table, {"slices": {"country": "DE"}})
    assert coded(table, {"slices": {"vip": True}}, {"slices": {"country": "DE"}})[1] == german
    series_code, values = table.key_of(german)
    assert values == ("DE", None)
    assert table.code_of(series_code, values) == german


def test_saved_cells_have_the_same_codes() -> None:
    names = SeriesTable({}, RULE)
    table = Cells(names, DIMENSIONS)
    codes = coded(table, *({"slices": {"vip": vip, "plan": 1}} for vip in (1, True, "x")), {"role": "holdback"})
    again = Cells(names, DIMENSIONS)
    again.load(unpack(pack(table.save()), SavedCells))
    assert [repr(again.key_of(code)) for code in codes] == [repr(table.key_of(code)) for code in codes]


def test_keys_of_long_values_fill_a_table_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BYTES_MAX", 20_000)
    table = Cells(SeriesTable({}, RULE), DIMENSIONS)
    coded(table, *({"slices": {"plan": number}} for number in range(10)))
    assert not table.full
    coded(table, *({"slices": {"plan": f"{'x' * 120}{number}"}} for number in range(10, 30)))
    assert table.full


def test_code_that_no_row_has_is_given_again_and_a_saved_table_has_the_others() -> None:
    table = SeriesTable({"listed": OTHER}, RULE)
    codes = [table.code(model, "v", "live") for model in ("m", "listed", "n")]
    table.keep({codes[1]})
    again = SeriesTable({"listed": OTHER}, RULE)
    again.load(unpack(pack(table.save()), tuple[list[str], list[Series]]))
    for each in (table, again):
        assert (len(each), each.model_number("m"), each.models()[each.model_number("listed")]) == (1, -1, "listed")
        assert each.rules[codes[1]] == OTHER
        assert sorted(each.code(model, "v", "live") for model in ("o", "p")) == [codes[0], codes[2]]
        assert each.models()[each.model_number("p")] == each[each.code("p", "v", "live")].model == "p"
        assert each.code("q", "v", "live") == 3


def test_full_table_is_left_for_a_new_one_and_earlier_rows_are_still_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELLS_MAX", 3)
    window = BatchWindow({}, RULE, Tally(), b"any")
    decoders = source_decoders()
    for begin in range(0, 12, 4):
        values = predictions(*({"id": f"p{n}", "slices": {"country": f"c{n}"}} for n in range(begin, begin + 4)))
        window.add_predictions(records_of(decoders[0], "prediction", values, begin))
    assert len(window.generations) == 3
    labels = [encode_line(Feedback(id=f"p{n}", truth=1)) for n in range(12)]
    window.add_feedback(records_of(decoders[1], "feedback", labels, 100, 1))
    joined = window.take()
    found = {
        (position, some.cells.key_of(cell)[1])
        for some in map(window.present, joined.outcomes)
        for _, cell, position, *_ in some.columns.T.tolist()
    }
    assert found == {(n, (f"c{n}", None)) for n in range(12)}


def test_sources_beyond_what_a_row_can_name_are_joined_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_values, "SOURCES_MAX", 2)
    window, decoders = BatchWindow({}, RULE, Tally(), b"any"), source_decoders()
    window.add_predictions(records_of(decoders[0], "prediction", predictions(*({} for _ in range(6)))))
    labels = [encode_line(Feedback(id=f"p{n}", truth=1, source=f"desk-{n}")) for n in range(6)]
    window.add_feedback(records_of(decoders[1], "feedback", labels, 100, 1))
    found = {some.sources[code] for some in window.take().outcomes for code in some.columns[SOURCE].tolist()}
    assert found == {f"desk-{n}" for n in range(6)}
    window.forget_sources()
    assert window.sources.names == ["desk-0", "desk-1"]


def test_key_of_an_earlier_row_is_in_one_place_when_an_unusual_prediction_has_it_too() -> None:
    """Of a model judged without labels: its predictions are objects, so the row of the other model moves there."""
    rules = {"seen": WindowRule(100, 10, (), unlabelled=True)}
    window, decoders = BatchWindow(rules, RULE, Tally(), b"any"), source_decoders()
    for number, model in enumerate(("m", "seen")):
        values = predictions({"model": model})
        window.add_predictions(records_of(decoders[0], "prediction", values, number))
    assert sorted(pending.position for pending in window.slow.waiting) == [0, 1]
    window.add_feedback(records_of(decoders[1], "feedback", [b'{"id":"p0","truth":1}'], 100, 1))
    assert sorted(row[2] for some in window.take().outcomes for row in some.columns.T.tolist()) == [0, 1]
    window.evict(10_000, 10_000)
    assert not window.slow.waiting
