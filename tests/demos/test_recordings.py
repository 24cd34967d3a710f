"""The recordings hold valid events in order of arrival, and what happens in them is what their facts say."""

import gzip
from io import BytesIO

import numpy as np
import orjson
import pytest

from console.census import SCENARIOS, config_yaml, make_recording
from console.census.rows import REFERENCE_ROWS
from console.census.scenarios import SLICES, Change, scenario_named
from streams.config.parse import parse
from unship.codec import decode_line
from unship.events import Deployment, Feedback, Prediction

HOUR_MS = 3_600_000


class Recorded:
    """One recording: bytes, facts, and its events by kind."""

    def __init__(self, scenario, seed):
        out = BytesIO()
        self.facts = make_recording(scenario, seed, out)
        self.data = out.getvalue()
        self.events = [decode_line(line) for line in self.data.splitlines()]
        self.predictions = {e.id: e for e in self.events if isinstance(e, Prediction)}
        self.labels = {e.id: e for e in self.events if isinstance(e, Feedback)}
        self.changed = self.facts.ts_changed_ms or self.facts.ts_last_ms
        self.deployments = [e for e in self.events if isinstance(e, Deployment)]

    def error(self, chosen):
        """Return the share of wrong answers among the labelled predictions that `chosen` accepts."""
        wrong = [
            p.output != self.labels[p.id].truth for p in self.predictions.values() if p.id in self.labels and chosen(p)
        ]
        return sum(wrong) / len(wrong)


@pytest.fixture(scope="module", params=list(SCENARIOS))
def recorded(request):
    return Recorded(request.param, 7)


@pytest.fixture(scope="module")
def decay():
    return Recorded("decay", 7)


def test_every_line_is_an_event_of_the_contract(recorded):
    count = len(recorded.predictions) + len(recorded.labels) + len(recorded.deployments)
    assert count == len(recorded.events) == recorded.facts.lines


def test_lines_are_in_order_of_arrival(recorded):
    times = [event.ts for event in recorded.events]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (recorded.facts.ts_first_ms, recorded.facts.ts_last_ms)


def test_v41_is_live_first_then_keeps_a_tenth_as_holdback(recorded):
    assert [(d.version, d.status, d.previous) for d in recorded.deployments] == [
        ("v41", "live", None),
        ("v42", "live", "v41"),
        ("v41", "holdback", None),
    ]
    released = recorded.facts.ts_released_ms
    assert recorded.deployments[1].ts == released
    before = [p for p in recorded.predictions.values() if p.ts < released]
    after = [p for p in recorded.predictions.values() if p.ts >= released]
    assert {(p.version, p.role) for p in before} == {("v41", "live")}
    assert {(p.version, p.role) for p in after} == {("v42", "live"), ("v41", "holdback")}
    assert 0.09 < sum(p.role == "holdback" for p in after) / len(after) < 0.11


def test_there_are_enough_outcomes_to_learn_from_before_anything_happens(recorded):
    """8,000 of v41 alone and 5,000 of v42 before the first change."""
    facts = recorded.facts
    in_time = [
        p
        for p in recorded.predictions.values()
        if p.id in recorded.labels and recorded.labels[p.id].ts - p.ts <= HOUR_MS
    ]
    assert sum(p.ts < facts.ts_released_ms for p in in_time) >= 8_000
    changes = [facts.ts_changed_ms, facts.ts_anomaly_ms[0] if facts.ts_anomaly_ms else None]
    first_change = min((ts for ts in changes if ts is not None), default=facts.ts_last_ms)
    assert sum(p.version == "v42" and p.ts < first_change for p in in_time) >= 5_000


def test_labels_come_after_their_prediction_out_of_order_and_some_never(recorded):
    delays = [label.ts - recorded.predictions[id_].ts for id_, label in recorded.labels.items()]
    assert min(delays) > 0
    assert max(delays) < 24 * HOUR_MS
    assert 2 * 60_000 < sorted(delays)[len(delays) // 2] < 20 * 60_000
    prompt = SCENARIOS[recorded.facts.scenario].prompt
    asked = {id_: at for at, id_ in enumerate(recorded.predictions)}
    arrived = [asked[id_] for id_ in recorded.labels]
    assert arrived != sorted(arrived)
    assert recorded.facts.labelled_share == len(recorded.labels) / len(recorded.predictions)
    assert 0.96 < recorded.facts.labelled_share < 0.98
    in_time = sum(delay <= HOUR_MS for delay in delays) / len(recorded.predictions)
    assert recorded.facts.labelled_in_time_share == in_time
    assert (in_time == recorded.facts.labelled_share) if prompt else 0.90 < in_time < 0.96


def test_the_delay_of_a_label_does_not_depend_on_the_truth(recorded):
    late: dict[int, list[bool]] = {0: [], 1: []}
    for id_, label in recorded.labels.items():
        late[label.truth].append(label.ts - recorded.predictions[id_].ts > HOUR_MS)
    shares = {truth: sum(values) / len(values) for truth, values in late.items()}
    assert abs(shares[0] - shares[1]) < 0.01


def test_every_source_holds_at_least_a_tenth_of_the_labels(recorded):
    sources = [label.source for label in recorded.labels.values()]
    shares = {name: sources.count(name) / len(sources) for name in set(sources)}
    assert set(shares) == {"register", "survey", "employer"}
    assert min(shares.values()) > 0.1


def test_slices_are_those_that_the_configuration_lists(recorded):
    assert {tuple(p.slices) for p in recorded.predictions.values()} == {SLICES}
    config = parse(config_yaml(recorded.facts.scenario))
    assert tuple(config.models["employment"].slices_by) == SLICES


def test_facts_tell_how_often_each_version_errs(recorded):
    released, changed = recorded.facts.ts_released_ms, recorded.facts.ts_changed_ms
    by_name = {(phase.phase, phase.version): phase for phase in recorded.facts.phases}
    assert sum(phase.predictions for phase in recorded.facts.phases) == len(recorded.predictions)
    alone = by_name["v41 alone", "v41"]
    assert alone.predictions == sum(p.ts < released for p in recorded.predictions.values())
    # The facts count every answer, the recording shows the truth of 97 % of them.
    assert alone.zero_one == pytest.approx(recorded.error(lambda p: p.ts < released), abs=0.005)
    if SCENARIOS[recorded.facts.scenario].change is Change.AGE_BANDS:
        phase = by_name["age in bands", "v42"]
        stop = recorded.facts.ts_anomaly_ms[0] if recorded.facts.ts_anomaly_ms else recorded.facts.ts_last_ms
        seen = recorded.error(lambda p: p.version == "v42" and changed <= p.ts < stop)
        assert phase.zero_one == pytest.approx(seen, abs=0.01)
        assert phase.zero_one > by_name["v42 released", "v42"].zero_one + 0.05


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(decay):
    again, other = BytesIO(), BytesIO()
    make_recording("decay", 7, again)
    make_recording("decay", 8, other)
    assert again.getvalue() == decay.data
    assert other.getvalue() != decay.data


def test_a_path_ending_in_gz_holds_the_same_lines_compressed(tmp_path, decay):
    plain, packed = tmp_path / "decay.ndjson", tmp_path / "decay.ndjson.gz"
    assert make_recording("decay", 7, plain) == make_recording("decay", 7, packed) == decay.facts
    assert plain.read_bytes() == decay.data
    assert packed.read_bytes()[:2] == b"\x1f\x8b"
    assert gzip.decompress(packed.read_bytes()) == decay.data


def test_bands_change_answers_of_v42_alone_and_only_from_their_row_on(decay):
    """Without the re-encoding the same seed gives the same recording, but for these answers."""
    healthy = Recorded("no-change", 7)
    assert list(decay.labels.items()) == list(healthy.labels.items())
    changed = [id_ for id_, p in decay.predictions.items() if p != healthy.predictions[id_]]
    assert {decay.predictions[id_].version for id_ in changed} == {"v42"}
    first = min(decay.predictions[id_].ts for id_ in changed)
    assert decay.facts.ts_changed_ms is not None
    assert first >= decay.facts.ts_changed_ms
    banded_from = scenario_named("decay").changed_from
    assert banded_from is not None
    assert banded_from == decay.facts.changed_from_row
    assert min(int(id_.removeprefix("ma-")) for id_ in changed) >= banded_from
    flipped = sum(decay.predictions[id_].output != healthy.predictions[id_].output for id_ in changed)
    assert flipped > 2_000


def test_lost_age_makes_v42_worse_in_one_group_alone():
    lost = Recorded("slice", 7)
    start = lost.changed
    for group, least, most in ((2, 0.15, 0.5), (1, -0.02, 0.02)):
        before = lost.error(lambda p, group=group: p.version == "v42" and p.ts < start and p.slices["RAC1P"] == group)
        after = lost.error(lambda p, group=group: p.version == "v42" and p.ts >= start and p.slices["RAC1P"] == group)
        assert least < after - before < most
    beside = lost.error(lambda p: p.version == "v41" and p.ts >= start and p.slices["RAC1P"] == 2)
    assert beside < 0.25


def test_workers_who_stay_at_home_make_both_versions_wrong():
    home = Recorded("both-bad", 7)
    start = home.changed
    for version in ("v41", "v42"):
        before = home.error(lambda p, version=version: p.version == version and p.ts < start)
        assert home.error(lambda p, version=version: p.version == version and p.ts >= start) - before > 0.1


def test_liar_contradicts_v42_where_it_is_right_and_nobody_else():
    """The honest recording of the same seed differs in these labels alone."""
    poison, honest = Recorded("poison", 7), Recorded("no-change", 7)
    assert poison.predictions == honest.predictions
    lies = [id_ for id_, label in poison.labels.items() if label != honest.labels[id_]]
    assert len(lies) > 1_000
    assert {poison.labels[id_].source for id_ in lies} == {"survey"}
    assert {poison.predictions[id_].version for id_ in lies} == {"v42"}
    assert all(poison.predictions[id_].output == honest.labels[id_].truth for id_ in lies)
    times = np.array([poison.predictions[id_].ts for id_ in lies])
    assert times.min() >= poison.changed


def test_late_labels_of_workers_come_at_the_half_hour_and_still_in_time():
    late = Recorded("late-labels", 7)
    slow = {
        id_: late.labels[id_]
        for id_, p in late.predictions.items()
        if id_ in late.labels and late.labels[id_].truth == 1 and p.ts is not None and p.ts >= late.changed
    }
    told = np.array([label.ts for label in slow.values()])
    asked = np.array([late.predictions[id_].ts for id_ in slow])
    assert not (told % (30 * 60_000)).any()
    assert (told - asked).max() < HOUR_MS


def test_without_a_holdback_v42_answers_alone_after_the_release():
    out = BytesIO()
    make_recording("decay", 7, out, holdback=False)
    events = [decode_line(line) for line in out.getvalue().splitlines()]
    assert [(e.version, e.status) for e in events if isinstance(e, Deployment)] == [("v41", "live"), ("v42", "live")]
    versions = [(e.version, e.role) for e in events if isinstance(e, Prediction)]
    assert sorted(set(versions)) == [("v41", "live"), ("v42", "live")]
    assert versions == sorted(versions)


def test_in_the_mix_shift_v42_errs_as_v41_does_and_no_more_than_before_within_each_kind():
    shift = Recorded("mix-shift", 7)
    assert shift.facts.ts_anomaly_ms is not None
    start, stop = shift.facts.ts_anomaly_ms
    released = shift.facts.ts_released_ms
    inside = shift.error(lambda p: p.version == "v42" and start <= p.ts <= stop)
    assert inside - shift.error(lambda p: p.version == "v42" and p.ts < start) > 0.04
    assert inside - shift.error(lambda p: p.version == "v41" and start <= p.ts <= stop) < 0.02
    for kind in (16, 17):
        before = shift.error(lambda p, kind=kind: released <= p.ts < start and p.slices["RELP"] == kind)
        within = shift.error(lambda p, kind=kind: start <= p.ts <= stop and p.slices["RELP"] == kind)
        assert within - before < 0.02


def test_ids_name_rows_of_the_analysis_part_that_are_asked_once(recorded):
    numbers = [int(id_.removeprefix("ma-")) for id_ in recorded.predictions]
    assert len(numbers) == recorded.facts.predictions
    assert min(numbers) >= REFERENCE_ROWS


def test_an_unknown_scenario_is_refused_with_the_list_of_names():
    with pytest.raises(ValueError, match=r"expected one of decay, slice, both-bad, .*, was 'x'"):
        make_recording("x", 1, BytesIO())


def test_the_first_line_of_a_recording_states_how_good_v41_was_in_2015(decay):
    first = orjson.loads(decay.data.splitlines()[0])
    assert first["reference"]["zero_one"] == {"mean": 0.17224, "n": 50_000}
