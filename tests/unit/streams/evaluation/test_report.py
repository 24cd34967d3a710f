"""The evidence of a decision holds what was weighed, and nothing of what was not there."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from actions.evidence import Quorum
from actions.evidence_tree import Evidence, Mean, MeanIfAny
from detectors.rows.concurrent import new_comparison
from detectors.rows.history import Block
from detectors.rows.label_share import new_label_health
from detectors.rows.types import SOURCE_CELLS, Alarm, StatedReference
from detectors.rows.watch import new_health
from streams.config.parse import parse
from streams.config.resolved import ModelConfig
from streams.evaluation.findings import TargetVerdict
from streams.evaluation.opinions import Opinions
from streams.evaluation.periods import Concurrent, LivePeriod, ModelState, new_model_state, rules_for
from streams.evaluation.report import SLICES_SHOWN, evidence_of
from streams.evaluation.slices import Stream
from streams.evaluation.track_records import RecordComparison


def config_of(more: str = "detectors: [e_detector]") -> ModelConfig:
    return parse(f"models: {{m: {{losses: [zero_one], slices: {{by: [country]}}, {more}}}}}").of("m")


def state_of(config: ModelConfig, slices: int = 0, sources: int = 0) -> tuple[ModelState, LivePeriod]:
    """Return a model of which v2 is live, with a baseline of 0.1 in every row."""
    state = new_model_state(config)
    state.layout.slices.streams.extend(Stream("country", i) for i in range(slices))
    state.layout.sources.names.extend(f"s{i}" for i in range(sources))
    state.start_period(config, "v2", 0)
    assert state.live is not None
    state.live.health.fit(1 + slices, sources)
    bank = state.live.health.rows.banks[0]
    bank.replace(np.ones(bank.n.size, np.bool_), np.full(bank.n.size, 999.0), np.full(bank.n.size, 99.5))
    return state, state.live


def report(config: ModelConfig, state: ModelState, live: LivePeriod, chosen: TargetVerdict | None = None) -> Evidence:
    return evidence_of(state, live, config, rules_for(state, config, True), Opinions(config.detectors, 1), chosen)


def alarmed(live: LivePeriod, stream: int = 0, sources: int = 1) -> Alarm:
    """Let a stream alarm, with 200 outcomes of mean 0.3 from each source in every stream since 500."""
    window = np.zeros((2, live.health.rows.streams, SOURCE_CELLS))
    window[0, :, :sources], window[1, :, :sources] = 200.0, 60.0
    alarm = Alarm("e_detector", 0, stream, 900, 500, 123.4567891234, 100.0, 200.0, window)
    live.health.alarms.append(alarm)
    return alarm


def verdict(alarm: Alarm, **more: Any) -> TargetVerdict:
    return msgspec.structs.replace(TargetVerdict(alarm, None, 0.0, 100.0, Quorum.WAITING), **more)


def test_well_version_has_no_more_than_its_detectors_and_labels() -> None:
    config = config_of()
    state, live = state_of(config)
    found = report(config, state, live)
    assert (found.maturity, found.sources, found.label_coverage) == ("none", 1, UNSET)
    assert found.alarm is found.slices is found.comparison is found.mix is found.unfit is UNSET


def test_label_coverage_and_maturity_are_there_where_labels_have_time() -> None:
    config = config_of("detectors: [e_detector], labels: {mature_after: 10m}")
    state, live = state_of(config)
    live.labels.close(200, 150, 1e6)
    assert (report(config, state, live).maturity, report(config, state, live).label_coverage) == ("10m", 0.75)


@pytest.mark.parametrize(
    ("more", "promise"),
    [
        ("detectors: [e_detector], one_false_alarm_per: 5000", "one false alarm per 5000 outcomes"),
        ("detectors: [e_detector], one_false_alarm_per: 1h", "one false alarm per 3600 seconds"),
        ("detectors: [adwin, e_detector]", "not promised"),
    ],
)
def test_promise_is_that_of_the_deciding_detector(more: str, promise: str) -> None:
    config = config_of(more)
    found = report(config, *state_of(config)).detectors
    assert found
    assert (found["promise"], found["decides"]) == (promise, config.detectors[0])


def test_row_that_learns_has_no_baseline_and_an_ignored_reference_is_shown() -> None:
    config = config_of()
    state, live = state_of(config)
    live.health.rows.banks[0].learning[0] = True
    live.health.rows.references[0] = StatedReference(0.5, 2_000.0, 0.0, 0.0, 4, ignored=True)
    found = report(config, state, live).detectors
    assert found
    assert isinstance(rows := found["e_detector"], dict)
    assert msgspec.to_builtins(rows["zero_one"]) == {
        "evidence": 0.0, "baseline": None, "basis": "learning", "ignored_reference": {"mean": 0.5, "n": 2_000.0},
    }  # fmt: skip


def test_alarm_is_reported_with_what_was_usual_and_what_came_since() -> None:
    config = config_of()
    state, live = state_of(config, slices=1)
    found = report(config, state, live, verdict(alarmed(live, stream=1))).alarm
    assert found
    assert (found.loss, found.slice, found.ts, found.change_ts) == ("zero_one", {"country": 0}, 900, 500)
    assert (found.evidence, found.since_change, found.baseline) == (123.456789, Mean(0.3, 200.0), Mean(0.1, 999.0))


def test_slices_with_most_evidence_come_first_and_an_alarmed_one_keeps_what_it_had() -> None:
    config = config_of()
    state, live = state_of(config, slices=SLICES_SHOWN + 2)
    live.health.rows.banks[0].totals[1:] = [1.0, 7.0, 3.0, 0.0, 5.0, 2.0, 4.0]
    found = report(config, state, live, verdict(alarmed(live, stream=4))).slices
    assert found
    assert [entry.slice for entry in found] == [{"country": i} for i in (3, 1, 4, 6, 2)]
    assert [entry.evidence for entry in found] == [123.456789, 7.0, 5.0, 4.0, 3.0]


def test_model_without_slices_and_targets_has_an_empty_list_and_a_null() -> None:
    config = config_of()
    state, live = state_of(config)
    found = report(config, state, live, verdict(alarmed(live)))
    assert (found.slices, found.comparison, found.sources) == ([], None, 1)


@pytest.mark.parametrize(
    ("sums", "target", "difference"),
    [((50.0, 5.0), MeanIfAny(0.1, 50.0), 0.2), ((0.0, 0.0), MeanIfAny(None, 0.0), None)],
)
def test_comparison_names_both_sides_of_the_same_time(
    sums: tuple[float, float], target: MeanIfAny, difference: float | None
) -> None:
    config = config_of()
    state, live = state_of(config)
    health = new_health("v1", "shadow", 0, [True], 1)
    health.history.extend([Block(600, np.array([0]), np.array(sums)[:, None])])
    live.concurrent["v1"] = Concurrent("shadow", health, new_label_health(), new_comparison("v1", "shadow", 1, 1))
    found = report(config, state, live, verdict(alarmed(live))).comparison
    assert found
    assert (found.basis, found.target, found.role, found.record) == ("concurrent", "v1", "shadow", UNSET)
    assert (found.candidate, found.target_since_change) == (Mean(0.3, 200.0), target)
    assert found.difference == (difference if difference is None else pytest.approx(difference))


def test_comparison_with_a_record_has_no_mean_of_today() -> None:
    config = config_of()
    state, live = state_of(config)
    record = RecordComparison("v1", 500.0, 100.0, 0.1, 4_000.0, 7, 0.12, 3_000.0, "country", None)
    found = report(config, state, live, verdict(alarmed(live), target="v1", record=record)).comparison
    assert found
    assert found.record
    assert (found.basis, found.role, found.target_since_change) == ("record", "live", MeanIfAny(None, 0.0))
    assert (found.record.since_ts, found.record.today.mean, found.record.today.dimension) == (7, 0.12, "country")
    assert found.difference == pytest.approx(0.18)


def test_sources_are_reported_one_by_one_once_there_are_two() -> None:
    config = config_of()
    state, live = state_of(config, sources=2)
    found = report(config, state, live, verdict(alarmed(live, sources=2))).sources
    assert isinstance(found, dict)
    assert {name: entry.share for name, entry in found.items()} == {"s0": 0.5, "s1": 0.5}
    assert found["s0"].without.outcomes == 200.0


def test_mix_and_versions_that_cannot_be_served_are_named() -> None:
    config = config_of()
    state, live = state_of(config, slices=1)
    alarmed(live).explain("country", 1)
    state.desired.change("v1", (0, 1, 0))
    state.desired.change("v2", (0, 2, 0))
    found = report(config, state, live, verdict(live.health.alarms[0]))
    assert found.mix
    assert (found.mix.dimension, found.mix.value) == ("country", 0)
    assert list(found.unfit or ()) == ["v1"]
