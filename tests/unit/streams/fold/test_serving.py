"""What answers live is judged, whether or not a deployment says so, and nobody is commanded by answers alone."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from actions.journal import Decision, decision_bytes
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.fold import Fold
from streams.fold.status import model_status
from streams.recordings.replay import Replay
from tests.keys import SIGNER
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, OperatorAct, Prediction
from unship.log.embedded.log import EmbeddedLog, Message

START = 1_772_409_600_000
STEP_MS = 100


def config_of(mode: str = "observe", mature: str = "0s", horizon: str = "7d") -> Config:
    return parse(
        f"models: {{m: {{labels: {{mature_after: {mature}, horizon: {horizon}}}, worse_by: 0.02, "
        f"one_false_alarm_per: 10000, policy: {{mode: {mode}, confirm_within: 10m}}}}}}"
    )


class Answers:
    """Predictions with their labels, one after the other."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now, self._rng = START, random.Random(7)

    def deployed(self, version: str) -> Answers:
        self.events.append(Deployment(model="m", version=version, status="live", ts=self.now))
        return self

    def act(self, **fields: str) -> Answers:
        self.events.append(OperatorAct(model="m", reason="test", by="me", ts=self.now, **fields))  # type: ignore[arg-type]
        return self

    def wait(self, ms: int) -> Answers:
        self.now += ms
        return self

    def give(self, count: int, wrong: dict[str, float]) -> Answers:
        """Let versions answer in turn, each wrong in its share."""
        versions = list(wrong)
        for number in range(count):
            self.now += STEP_MS
            version = versions[number % len(versions)]
            name, error = str(len(self.events)), self._rng.random() < wrong[version]
            self.events.append(Prediction(id=name, model="m", version=version, output=int(error), ts=self.now))
            self.events.append(Feedback(id=name, truth=0, ts=self.now))
        return self


def replayed(answers: Answers, config: Config, advance_ms: int = 60_000) -> tuple[Replay, list[Decision]]:
    replay = Replay(config)
    lines = b"\n".join(map(encode_line, answers.events)) + b"\n"
    return replay, [*replay.decisions(io.BytesIO(lines)), *replay.advance(answers.now + advance_ms)]


def fold_of(replay: Replay) -> Fold:
    (fold,) = replay.folds.values()
    return fold


def told(decisions: Sequence[Decision]) -> list[tuple[str, str, str, str | None]]:
    """Return what was decided on versions that got worse, or was noticed."""
    return [(d.version, d.reason, d.action, d.to) for d in decisions if d.action != "none"]


def worse_release() -> Answers:
    return Answers().give(1_500, {"v1": 0.05}).give(1_600, {"v2": 0.35})


RELEASED_AT = START + 1_501 * STEP_MS


@pytest.mark.parametrize("mature", ["0s", "20s"])
@pytest.mark.parametrize(("mode", "action"), [("observe", "observe"), ("approve", "propose"), ("act", "propose")])
def test_release_without_any_deployment_is_judged_by_the_record_of_the_version_before(
    mode: str, action: str, mature: str
) -> None:
    replay, decisions = replayed(worse_release(), config_of(mode, mature))
    assert told(decisions) == [("v2", "RECORD_BETTER", action, "v1")]
    evidence = decisions[-1].evidence
    assert evidence.implied
    assert evidence.alarm
    assert evidence.alarm.basis == "previous"
    # The version before is the yardstick from its first answer on.
    assert abs(evidence.alarm.change_ts - RELEASED_AT) <= 60_000
    state = fold_of(replay).models["m"].state
    assert (state.desired.serve, state.live and state.live.version) == ("v2", "v2")
    assert state.desired.changes.earlier == ["v1"]
    assert fold_of(replay).counts()["NOT_JUDGED"] == 0
    assert fold_of(replay).commanded() == {}
    assert model_status(fold_of(replay).models["m"], answers_end(decisions)).lagging({}) == {}


def answers_end(decisions: Sequence[Decision]) -> int:
    return decisions[-1].ts


@pytest.mark.parametrize(("mode", "action"), [("observe", "observe"), ("act", "propose")])
def test_version_without_a_deployment_where_others_have_one_is_judged_and_noticed_once(mode: str, action: str) -> None:
    answers = Answers().deployed("v1").give(1_500, {"v1": 0.05}).give(2_400, {"v1": 0.05, "v2": 0.35})
    replay, decisions = replayed(answers, config_of(mode))
    found = told(decisions)
    assert found.count(("v2", "UNANNOUNCED_VERSION", "page", None)) == 1
    assert [each for each in found if each[1] != "UNANNOUNCED_VERSION"] == [("v2", "TARGET_BETTER", action, "v1")]
    assert "v2" not in [decision.to for decision in decisions]
    model = fold_of(replay).models["m"]
    assert model.state.desired.serve == "v1"
    assert model_status(model, answers.now).beside == {"v2": "TARGET_BETTER"}
    assert set(fold_of(replay).commanded()) == ({"m"} if mode == "act" else set())


def test_version_without_a_deployment_is_no_target_where_others_have_one() -> None:
    answers = Answers().deployed("v1").give(2_000, {"v1": 0.05, "v2": 0.05}).give(2_400, {"v1": 0.35, "v2": 0.05})
    _, decisions = replayed(answers, config_of())
    assert {(each.version, each.reason) for each in decisions if each.action == "page"} == {
        ("v1", "TARGET_UNKNOWN"),
        ("v2", "UNANNOUNCED_VERSION"),
    }
    assert {each.to for each in decisions} == {None}


def test_few_answers_without_a_deployment_are_no_notice() -> None:
    answers = Answers().deployed("v1").give(300, {"v1": 0.05}).give(99, {"v2": 0.05}).give(300, {"v1": 0.05})
    assert told(replayed(answers, config_of())[1]) == []


@pytest.mark.parametrize("bad", ["vA", "vE"])
@pytest.mark.parametrize("mature", ["0s", "20s"])
def test_one_of_five_live_versions_that_decays_is_found_and_a_healthy_one_is_named(bad: str, mature: str) -> None:
    good = dict.fromkeys(["vA", "vB", "vC", "vD", "vE"], 0.05)
    answers = Answers().give(6_000, good).give(2_000, good | {bad: 0.4})
    replay, decisions = replayed(answers, config_of(mature=mature))
    # One decision for each target that turns out to be better.
    assert {each[:3] for each in told(decisions)} == {(bad, "TARGET_BETTER", "observe")}
    assert {each[3] for each in told(decisions)} <= good.keys() - {bad}
    assert fold_of(replay).counts()["NOT_JUDGED"] == 0


@pytest.mark.parametrize("mode", ["observe", "approve", "act"])
def test_version_that_only_answers_is_commanded_from_an_operators_act_on(mode: str) -> None:
    answers = Answers().give(900, {"v1": 0.05})
    assert fold_of(replayed(answers, config_of(mode))[0]).commanded() == {}
    # A pin of what serves is an order, and so is a rollback.
    pinned = fold_of(replayed(answers.act(act="pin"), config_of(mode))[0]).commanded()
    assert [each.serve for each in pinned.values()] == ([] if mode == "observe" else ["v1"])


def test_approved_proposal_takes_back_a_version_that_answers_beside_the_live_one() -> None:
    good = dict.fromkeys(["vA", "vB"], 0.05)
    answers = Answers().give(3_000, good).give(2_400, good | {"vB": 0.4})
    _, decisions = replayed(answers, config_of("approve"))
    assert told(decisions) == [("vB", "TARGET_BETTER", "propose", "vA")]
    answers.act(act="approve").give(200, good)
    replay, decisions = replayed(answers, config_of("approve"))
    assert told(decisions)[1:] == [("vB", "APPROVED", "rollback", "vA")]
    desired = fold_of(replay).models["m"].state.desired
    assert (desired.serve, [each.version for each in desired.quarantine]) == ("vA", ["vB"])
    assert fold_of(replay).commanded() == {"m": desired}
    assert fold_of(replay).counts()["STILL_SERVED"] == 100


def test_first_deployment_takes_the_version_that_answered_as_the_one_before() -> None:
    answers = Answers().give(1_500, {"v1": 0.05}).deployed("v2").give(1_600, {"v2": 0.35})
    replay, decisions = replayed(answers, config_of("act"))
    assert told(decisions) == [("v2", "RECORD_BETTER", "propose", "v1")]
    assert not decisions[-1].evidence.implied
    assert set(fold_of(replay).commanded()) == {"m"}


def test_single_probe_does_not_make_a_version_live() -> None:
    answers = Answers().give(3, {"probe": 0.0}).give(300, {"v1": 0.05})
    state = fold_of(replayed(answers, config_of())[0]).models["m"].state
    assert (state.desired.serve, state.desired.changes.earlier) == ("v1", [])


@pytest.mark.parametrize("mature", ["0s", "20s"])
@pytest.mark.parametrize("stop", [3_290, 5_000])
def test_stop_and_other_batches_give_the_same_decisions(stop: int, mature: str) -> None:
    good = dict.fromkeys(["vA", "vB"], 0.05)
    answers = worse_release().give(900, good).give(900, good | {"vB": 0.4})
    lines = b"\n".join(map(encode_line, answers.events)) + b"\n"
    config = config_of(mature=mature)
    whole = [decision_bytes(each) for each in Replay(config).decisions(io.BytesIO(lines))]
    first = Replay(config)
    begun = list(first.decisions(io.BytesIO(lines), 7, stop))
    second = Replay(config, first.save())
    rest = list(second.decisions(io.BytesIO(lines), 13))
    assert [decision_bytes(each) for each in [*begun, *rest]] == whole
    assert len(whole) >= 3


def test_recording_asks_whether_a_target_ever_answered_and_not_when() -> None:
    """There are no replicas in it, so the label horizon says nothing about what could be served."""
    answers = Answers().deployed("v1").give(1_500, {"v1": 0.05}).deployed("v2").give(600, {"v2": 0.05})
    for _ in range(6):
        answers.wait(8 * 3_600_000).give(50, {"v2": 0.05})
    _, decisions = replayed(answers.give(900, {"v2": 0.4}), config_of(horizon="1d"))
    assert told(decisions) == [("v2", "RECORD_BETTER", "observe", "v1")]


def test_record_that_is_too_old_is_named_as_the_cause() -> None:
    answers = Answers().deployed("v1").give(1_500, {"v1": 0.05}).deployed("v2").give(600, {"v2": 0.05})
    for _ in range(64):
        answers.wait(12 * 3_600_000).give(10, {"v2": 0.05})
    _, decisions = replayed(answers.give(900, {"v2": 0.4}), config_of())
    assert told(decisions) == [("v2", "TARGET_UNKNOWN", "page", None)]
    assert decisions[-1].evidence.unfit == {"v1": "its record is older than 30 days"}


@pytest.mark.parametrize("mode", ["observe", "approve", "act"])
def test_monitor_commands_nothing_because_of_answers_alone(mode: str, tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path, now_ms=lambda: START)
    monitor = EmbeddedMonitor(log, config_of(mode), lambda: START, SIGNER)
    events = [msgspec.structs.replace(each, ts=START) for each in Answers().give(150, {"v1": 0.05}).events]
    for event in events:
        topic = "predictions" if isinstance(event, Prediction) else "feedback"
        log.append(topic, [Message(encode_line(event), b"m")])
    while monitor.step():
        pass
    assert monitor.pipeline.fold.models["m"].state.desired.serve == "v1"
    assert monitor.publish() == []
    assert log.latest("control") == {}
