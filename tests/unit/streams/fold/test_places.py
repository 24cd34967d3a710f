"""Names from outside take a limited number of places, never those of the configuration, and places are free again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from streams.config.units import DAY_MS
from streams.fold.fold import Fold
from streams.ledger.encoding import pack, unpack
from streams.pipeline import SavedPipeline, configuration_record
from tests.measures import calls_of
from tests.pipelines import Run
from tests.plans import EVERYTHING, Plan, config_of, events_of
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

START = 1_772_409_600_000
LIMITS = "limits: {models: 20, versions: 20}\n"
NAMED = LIMITS + "models: {fraud: {}}\n"


def answer(number: int, model: str, version: str = "v1", after: int = 0, **fields: Any) -> list[Event]:
    """Return a prediction and its label."""
    return [
        Prediction(
            id=f"{model}-{version}-{number}", model=model, version=version, output=1, ts=START + after, **fields
        ),
        Feedback(id=f"{model}-{version}-{number}", truth=1, ts=START + after),
    ]


def send(run: Run, *groups: list[Event]) -> Run:
    for group in groups:
        if 0 <= run.now < (ts := group[0].ts or 0) - DAY_MS:
            # A line by itself does not move the clock so far.
            run.rest()
            run.advance(ts)
        run.take(map(encode_line, group))
    run.rest()
    return run


def deployed(model: str, version: str, status: Any = "live", after: int = 0) -> list[Event]:
    return [Deployment(model=model, version=version, status=status, ts=START + after)]


def strangers(count: int, after: int = 0) -> list[list[Event]]:
    return [answer(0, f"junk{number}", after=after) for number in range(count)]


# Models


def test_models_of_the_configuration_and_deployed_ones_have_a_place_whatever_names_are_invented() -> None:
    run = send(Run(parse(NAMED)), *strangers(30), answer(0, "fraud"), deployed("churn", "v1"), answer(0, "churn"))
    assert run.fold.models["fraud"].state.outcomes == run.fold.models["churn"].state.outcomes == {"v1": 1}
    assert len(run.fold.models) == 22
    assert run.counts["MODEL_LIMIT"] == 10 * 2


def test_model_of_the_configuration_is_watched_after_more_names_than_a_join_keeps() -> None:
    run = send(Run(parse("models: {fraud: {}}")), *strangers(1_200), answer(0, "fraud"), deployed("fraud", "v1"))
    assert run.fold.models["fraud"].state.outcomes == {"v1": 1}
    assert len(run.fold.models) == 201


def test_model_that_has_a_place_keeps_it_when_it_is_deployed_and_makes_one_free() -> None:
    run = send(Run(parse(NAMED)), *strangers(20), deployed("junk3", "v1"), answer(0, "late"), answer(0, "later"))
    assert {"junk3", "late"} < set(run.fold.models)
    assert "later" not in run.fold.models


def test_places_of_models_without_predictions_for_a_horizon_are_free_again_and_their_counts_stay() -> None:
    run = send(Run(parse(NAMED)), *strangers(20), answer(0, "junk7"))
    before = run.counts
    assert before["DUPLICATE"] == 1
    send(run, answer(1, "junk7", after=6 * DAY_MS), answer(0, "late", after=6 * DAY_MS))
    assert (len(run.fold.models), run.counts["MODEL_LIMIT"]) == (20, 2)
    send(run, answer(1, "late", after=8 * DAY_MS))
    assert set(run.fold.models) == {"junk7", "late"}
    assert run.counts == {**before, "MODEL_LIMIT": 2}


def test_model_that_answers_once_a_month_is_not_forgotten_while_there_is_room() -> None:
    run = send(Run(parse(LIMITS)), answer(0, "m"), answer(0, "n", after=30 * DAY_MS), answer(1, "m", after=30 * DAY_MS))
    assert run.fold.models["m"].state.outcomes == {"v1": 2}


def test_model_that_was_decided_about_continues_its_chain_of_decisions_after_it_was_forgotten() -> None:
    run = send(Run(parse(LIMITS)), answer(0, "m"), *strangers(19))
    run.fold.models["m"].state.written.chain("digest")
    send(run, answer(0, "n", after=9 * DAY_MS))
    assert "m" not in run.fold.models
    send(run, answer(1, "m", after=9 * DAY_MS))
    decision = next(each for each in reversed(run.decisions) if each.model == "m")
    assert decision.digests.previous == "digest"


def test_models_with_a_version_in_quarantine_are_not_forgotten() -> None:
    run = send(Run(parse(LIMITS)), answer(0, "m"), *strangers(19))
    run.fold.models["m"].state.desired.roll_back("v0", (0, 9, 0), START, automatic=True, left="v1")
    send(run, answer(0, "n", after=9 * DAY_MS))
    assert run.fold.models["m"].state.desired.is_quarantined("v1")
    assert run.fold.places.deployed.keys() == {"m"}


def test_configuration_that_names_other_models_takes_and_gives_places() -> None:
    run = send(Run(parse(NAMED)), answer(0, "fraud"), answer(0, "churn"))
    other = configuration_record(parse(LIMITS + "models: {churn: {}}\n"), numbered=True)
    assert not [each for each in run.pipeline.apply([other]) if each.decisions]
    assert run.fold.places.strangers.keys() == {"fraud"}


# Versions


def flood(count: int, after: int = 0, role: Any = "live") -> Iterator[list[Event]]:
    return (answer(0, "fraud", f"junk{number}", after, role=role) for number in range(count))


@pytest.mark.parametrize("mature", ["0s", "10s"])
def test_deployed_versions_have_a_place_whatever_versions_are_invented(mature: str) -> None:
    config = parse(LIMITS + f"models: {{fraud: {{labels: {{mature_after: {mature}}}}}}}\n")
    run = send(
        Run(config), deployed("fraud", "v1"), answer(0, "fraud"), *flood(30), deployed("fraud", "v2", "holdback")
    )
    send(run, *(answer(number, "fraud", "v2", role="holdback") for number in range(5)))
    run.advance(START + 60_000)
    state = run.fold.models["fraud"].state
    assert (state.outcomes["v1"], state.outcomes["v2"], len(state.outcomes)) == (1, 5, 22)
    assert run.counts["VERSION_LIMIT"] == 10 * 2
    assert state.live is not None
    assert "v2" in state.live.concurrent


def test_places_of_versions_that_did_not_answer_for_a_horizon_are_free_again() -> None:
    run = send(Run(parse(NAMED)), answer(0, "fraud"), *flood(19))
    for days in range(8, 80, 8):
        names = (f"v-{days}-{number}" for number in range(10))
        send(run, *(answer(0, "fraud", name, days * DAY_MS, role="shadow") for name in names))
    state = run.fold.models["fraud"].state
    assert run.counts["VERSION_LIMIT"] == 0
    assert len(state.layout.arms) <= 21 + 10 + 8
    assert len(state.outcomes) <= 1 + 10 + 8


def test_version_that_serves_or_served_is_not_forgotten() -> None:
    run = send(Run(parse(NAMED)), deployed("fraud", "v1"), answer(0, "fraud"), deployed("fraud", "v2", after=1))
    send(run, *(answer(0, "fraud", "v2", days * DAY_MS) for days in range(1, 40)), *flood(20, 40 * DAY_MS))
    assert {"v1", "v2"} < set(run.fold.models["fraud"].state.outcomes)


def test_deployments_of_more_versions_than_are_kept_forget_the_oldest_that_plays_no_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.fold.arrivals.DEPLOYED_VERSIONS_MAX", 10)
    run = send(Run(parse(NAMED)), deployed("fraud", "v1"), answer(0, "fraud"), deployed("fraud", "v0", "holdback"))
    send(run, answer(0, "fraud", "v0", role="holdback"))
    send(run, *(deployed("fraud", f"junk{number}", "shadow", after=1 + number) for number in range(50)))
    deployed_now = run.fold.models["fraud"].state.desired.versions.deployed
    assert list(deployed_now) == ["v1", "v0", *(f"junk{number}" for number in range(42, 50))]


# Versions that are judged


def invented(plan: Plan, role: Any) -> list[tuple[int, Event]]:
    """Return predictions of eight invented versions, each with a label, before any honest one of them."""
    found: list[tuple[int, Event]] = []
    for number in range(8):
        found += [(2 + plan.before * 60, event) for event in answer(number, "m", f"junk{number}", 2, role=role)]
    return found


@pytest.mark.parametrize("mature_after_s", [0, 5])
@pytest.mark.parametrize("role", ["holdback", "shadow"])
def test_eight_invented_versions_take_no_place_from_the_holdback_that_proves_the_decay(
    mature_after_s: int, role: str
) -> None:
    plan = msgspec.structs.replace(EVERYTHING, slices=False, noise=False, mature_after_s=mature_after_s, lines=500)
    outcomes = []
    for more in ([], invented(plan, role)):
        events = sorted([*events_of(plan), *more], key=lambda entry: entry[0])
        run = Run(config_of(plan))
        run.take(encode_line(event) for _, event in events)
        run.rest()
        outcomes.append([(d.action, d.version, d.to, d.reason) for d in run.decisions])
        live = run.fold.models["m"].state.live
        assert live is None or len(live.concurrent) <= 8
    assert ("rollback", "v2", "v1", "TARGET_BETTER") in outcomes[0]
    assert outcomes[0] == outcomes[1]


def test_undeployed_version_with_most_outcomes_is_judged_and_what_has_no_place_is_counted() -> None:
    run = send(Run(parse(NAMED)), answer(0, "fraud"), *flood(12, role="shadow"))
    live = run.fold.models["fraud"].state.live
    assert live is not None
    assert len(live.concurrent) == 8
    assert run.counts["NOT_JUDGED"] == 4
    send(run, *(answer(number, "fraud", "v0", 1_000, role="holdback") for number in range(3)))
    assert "v0" in live.concurrent
    assert len(live.concurrent) == 8


# All of it


def test_fold_that_goes_on_from_a_snapshot_gives_the_same_places() -> None:
    def rest(run: Run) -> Run:
        return send(
            run, *flood(10, 8 * DAY_MS), answer(0, "junk3", after=8 * DAY_MS), answer(0, "new", after=9 * DAY_MS)
        )

    whole = send(Run(parse(NAMED)), answer(0, "fraud"), *flood(30), *strangers(30))
    resumed = Run(parse(NAMED))
    resumed.pipeline.load(unpack(pack(whole.pipeline.save()), SavedPipeline))
    assert pack(rest(whole).fold.save()) == pack(rest(resumed).fold.save())


def test_record_of_an_honest_model_takes_as_many_steps_after_many_invented_names_as_before() -> None:
    def cost(fold_of: Run, number: int) -> int:
        events = [answer(1_000 * number + i, "fraud", after=1_000 * number) for i in range(50)]
        return calls_of(lambda: send(fold_of, *events))

    def honest(run: Run) -> Run:
        return send(run, deployed("fraud", "v1"), answer(0, "fraud"))

    clean = honest(Run(parse("models: {fraud: {}}")))
    dirty = honest(Run(parse("models: {fraud: {}}")))
    for role in ("live", "shadow", "holdback"):
        send(dirty, *flood(60, 1, role), *strangers(60, 1))
    assert isinstance(dirty.fold, Fold)
    for run in (clean, dirty):
        send(run, answer(2, "fraud", after=2_000))
    assert cost(dirty, 4) <= 1.3 * cost(clean, 4)
