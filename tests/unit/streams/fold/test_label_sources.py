"""Label sources get and lose places while a model is folded: what was counted of them moves along."""

from __future__ import annotations

import random

from streams.config.parse import parse
from streams.fold.fold import Fold, SavedFold
from streams.ledger.encoding import pack, unpack
from streams.pipeline import configuration_record
from tests.pipelines import Run, step
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

START = 1_772_409_600_000
CONFIG = parse("models: {m: {labels: {mature_after: 1m}, one_false_alarm_per: 1000}}")
HONEST = {"crm": 0.5, "desk": 0.3, "survey": 0.2}


def events(count: int, thrown_away: range, late: int) -> list[Event]:
    """Return outcomes of a version and a holdback.

    Args:
        count: How many.
        thrown_away: Which of them get labels under names that are not used otherwise.
        late: From this one on half of the labels come from a source that reported none before.
    """
    rng = random.Random(5)
    made: list[Event] = [
        Deployment(model="m", version="v1", status="holdback", ts=START),
        Deployment(model="m", version="v2", status="live", ts=START),
    ]
    for i in range(count):
        ts, held = START + 1 + 500 * i, rng.random() < 0.3
        role, version = ("holdback", "v1") if held else ("live", "v2")
        made.append(Prediction(id=f"p{i}", model="m", version=version, role=role, output=1, ts=ts))  # type: ignore[arg-type]
        source = rng.choices(list(HONEST), list(HONEST.values()))[0]
        source = f"t{i % 8}" if i in thrown_away else "late" if i >= late and rng.random() < 0.5 else source
        made.append(Feedback(id=f"p{i}", truth=int(rng.random() < 0.9), source=source, ts=ts))
    return made


def folded(thrown_away: range = range(80), late: int = 4_000, at_once: int = 4_000) -> Run:
    made, lines = Run(CONFIG), [encode_line(event) for event in events(4_000, thrown_away, late)]
    for begin in range(0, len(lines), at_once):
        made.take(lines[begin : begin + at_once])
    made.rest()
    return made


def test_sources_with_most_outcomes_have_places_and_nothing_is_counted_twice() -> None:
    state = folded().fold.models["m"].state
    assert set(HONEST) <= set(state.layout.sources.names)
    assert state.live is not None
    health = state.live.health
    health.settle()
    window = health.history.since(0, health.rows.streams, len(health.rows.banks))
    assert window[0, 0].sum() == health.outcomes
    # Before they had places they were counted with the others.
    by_name = {state.layout.sources.name(place): count for place, count in enumerate(window[0, 0].tolist()) if count}
    assert by_name["crm"] > by_name["desk"] > by_name["survey"] > 300
    assert by_name["__other__"] > 500


def test_row_that_leaves_a_new_source_out_begins_as_the_row_of_all() -> None:
    state = folded().fold.models["m"].state
    assert state.live is not None
    rows, place = state.live.health.rows, state.layout.sources.names.index("crm")
    own, left_out = rows.banks[0].own_n[rows.row(0)], rows.banks[0].own_n[rows.row(0, place + 1)]
    assert 0.4 * own < left_out < own


def test_fold_at_rest_goes_on_in_the_middle_of_a_count() -> None:
    records = folded().records
    whole, parts = Fold(CONFIG), Fold(CONFIG)
    for fold in (whole, parts):
        step(fold, configuration_record(CONFIG))
    for i, record in enumerate(records):
        step(whole, record)
        step(parts, record)
        if i % 37 == 0:
            saved = pack(parts.save())
            parts = Fold(CONFIG)
            parts.load(unpack(saved, SavedFold))
    assert pack(parts.save()) == pack(whole.save())


def test_places_that_change_hands_between_a_label_and_its_maturity_are_the_same_however_much_is_known_ahead() -> None:
    few, many = (folded(range(1_500, 1_600), 1_700, at_once) for at_once in (15, 9_000))
    assert "late" in many.fold.models["m"].state.layout.sources.names
    assert pack(many.fold.save()) == pack(few.fold.save())
