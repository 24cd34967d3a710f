"""The losses of a configuration: what is read, and what is refused with which words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from streams.config.parse import parse
from streams.losses.catalogue import KINDS, loss_specs
from streams.losses.columns import LossSpec
from unship.errors import ConfigurationError

NAN = math.nan


def test_losses_are_read_in_their_order_with_their_bounds() -> None:
    assert loss_specs(["brier", {"log": {"cap": 4}}, "zero_one"], "binary", "x") == [
        LossSpec("brier"),
        LossSpec("log", 4.0),
        LossSpec("zero_one"),
    ]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], ["losses: expected at least one loss"]),
        (["brier", "brier"], ["losses: ", "each once", "'brier', 'brier'"]),
        (["auc"], ["losses[0]: ", "unknown loss 'auc'", "zero_one, brier, log"]),
        (["zero_one", "log"], ["losses[1]: ", "needs its bound", "{log: {cap: 4}}"]),
        ([{"log": {}}], ["losses[0]: ", "needs its bound", "{}"]),
        ([{"log": {"bound": 3}}], ["losses[0]: ", "needs its bound", "'bound': 3"]),
        ([{"log": {"cap": 0}}], ["losses[0].cap: ", "above 0", "was 0"]),
        ([{"log": {"cap": True}}], ["losses[0].cap: ", "was True"]),
        ([{"log": {"cap": "4"}}], ["losses[0].cap: ", "was '4'"]),
        ([{"log": {"cap": NAN}}], ["losses[0].cap: ", "was nan"]),
        ([{"log": {"cap": 4}, "brier": {}}], ["losses[0]: ", "expected one loss", "brier"]),
        ([{}], ["losses[0]: ", "expected one loss"]),
        ([{"brier": {"scale": 1}}], ["losses[0]: ", "takes no options", "scale"]),
        ([{"absolute": {"scale": 1}}], ["losses[0]: ", "kind regression", "target.kind is binary", "[zero_one]"]),
    ],
)
def test_wrong_losses_are_refused_with_place_finding_and_what_is_expected(entries: list[Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as found:
        loss_specs(entries, "binary", "models.m.losses")
    assert str(found.value).startswith("models.m.losses")
    for word in words:
        assert word in str(found.value)


def test_number_is_judged_by_its_distance_in_units_of_a_scale() -> None:
    entries: list[Any] = [{"absolute": {"scale": 10}}, {"squared": {"scale": 2_500_000}}]
    assert loss_specs(entries, "regression", "x") == [LossSpec("absolute", 10.0), LossSpec("squared", 2_500_000.0)]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["absolute"], ["losses[0]: absolute needs its bound", "{absolute: {scale: 10}}"]),
        ([{"squared": {"cap": 4}}], ["losses[0]: squared needs its bound", "{squared: {scale: 10}}", "'cap': 4"]),
        ([{"absolute": {"scale": 0}}], ["losses[0].scale: ", "above 0", "was 0"]),
        ([{"absolute": {"scale": 1e15}}], ["losses[0].scale: ", "below 1000000000000000"]),
        (["zero_one"], ["losses[0]: zero_one ", "target.kind is regression", "losses: [{absolute: {scale: 10}}]"]),
        ([{"absolute": {"scale": 1}}, "brier"], ["losses[1]: brier ", "target.kind is regression"]),
        ([{"log": {"cap": 4}}], ["losses[0]: log ", "binary or multiclass", "target.kind is regression"]),
    ],
)
def test_loss_that_cannot_judge_a_number_or_has_no_scale_is_refused(entries: list[Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as found:
        loss_specs(entries, "regression", "models.m.losses")
    for word in words:
        assert word in str(found.value)


def test_regression_without_losses_is_told_which_loss_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"models\.m\.losses\[0\]: .*write losses: \[\{absolute: "):
        parse("models: {m: {target: {kind: regression}}}")


@pytest.mark.parametrize(
    ("detectors", "fix"), [("[ddm]", "put e_detector first"), ("[e_detector, ddm]", "leave it out")]
)
def test_detector_of_errors_on_numbers_is_refused_without_advice_that_does_not_fit(detectors: str, fix: str) -> None:
    target = "target: {kind: regression}, losses: [{absolute: {scale: 10}}]"
    with pytest.raises(ConfigurationError, match=r"models\.m\.detectors: ddm ") as found:
        parse(f"models: {{m: {{{target}, detectors: {detectors}}}}}")
    assert str(found.value).endswith(fix)


@pytest.mark.parametrize("kind", KINDS)
def test_latency_fits_every_kind_of_target_and_needs_its_objective(kind: str) -> None:
    assert loss_specs([{"latency": {"objective_ms": 200}}], kind, "x") == [LossSpec("latency", 200.0)]
    with pytest.raises(ConfigurationError, match=r"^x\[0\]: latency needs its bound.*objective_ms: 200"):
        loss_specs(["latency"], kind, "x")


def test_ranking_needs_its_own_loss_and_says_so() -> None:
    assert loss_specs(["ranking"], "ranking", "x") == [LossSpec("ranking")]
    with pytest.raises(
        ConfigurationError, match=r"losses\[0\]: zero_one .*target.kind is ranking.*losses: \[ranking\]"
    ):
        parse("models: {m: {target: {kind: ranking}}}")


@pytest.mark.parametrize("name", ["precision", "recall"])
def test_precision_and_recall_are_for_yes_and_no_only(name: str) -> None:
    assert loss_specs([name], "binary", "x") == [LossSpec(name)]
    with pytest.raises(ConfigurationError, match=rf"{name} judges targets of kind binary, and target.kind is multi"):
        loss_specs([name], "multiclass", "x")
