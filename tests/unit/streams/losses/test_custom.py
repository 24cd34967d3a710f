"""Losses that users write: what they may return, what happens when they fail, and how their source is recorded."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.config.file import load
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.losses.columns import JoinedColumns, LossSpec
from streams.losses.custom import OWN_LOSSES, OwnLoss, own_loss
from streams.pipeline import configuration_record
from tests.pipelines import parts_of, run
from unship.codec import encode_line
from unship.errors import ConfigurationError
from unship.events import Feedback, Prediction

SOURCE = "def off(outputs, truths, scores):\n    return [abs(a - b) / 10 for a, b in zip(outputs, truths)]\n\nno = 3\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with `ours_1.py` in it, importable, and forget everything afterwards."""
    (tmp_path / "ours_1.py").write_text(SOURCE)
    (tmp_path / "ours_2.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ours_1", raising=False)
    return tmp_path


def configured(folder: Path, losses: str, kind: str = "custom") -> Config:
    path = folder / "unship.yaml"
    path.write_text(f"models: {{m: {{target: {{kind: {kind}}}, losses: {losses}}}}}")
    return load(path)


def say(monkeypatch: pytest.MonkeyPatch, function: OwnLoss) -> list[float]:
    monkeypatch.setitem(OWN_LOSSES, ("a.b:c", "00"), function)
    column = own_loss(JoinedColumns([1, 2], [0.5, None], [None] * 2, [3, 4]), LossSpec("a.b:c", code_digest="00"))
    assert column.dtype == np.float64
    return column.tolist()


def test_function_sees_whole_columns_and_its_numbers_are_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def function(outputs: Any, truths: Any, scores: Any) -> Any:
        seen.append((outputs, truths, scores))
        return np.array([0.25, 1])

    assert say(monkeypatch, function) == [0.25, 1.0]
    assert seen == [([1, 2], [3, 4], [0.5, None])]


def test_number_outside_zero_to_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(say(monkeypatch, lambda *_: [1.5, 0]), [np.nan, 0])
    np.testing.assert_array_equal(say(monkeypatch, lambda *_: [np.inf, -0.1]), [np.nan] * 2)


@pytest.mark.parametrize("found", [[0.5], 0.5, [[0.5, 0.5]], ["x", 0], None, {}])
def test_answer_of_another_shape_is_no_loss_for_any(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    np.testing.assert_array_equal(say(monkeypatch, lambda *_: found), [np.nan] * 2)


def test_loss_whose_source_is_not_loaded_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match=r"loss a\.b:c with the source 00 is not loaded"):
        own_loss(JoinedColumns([1], [None], [None], [1]), LossSpec("a.b:c", code_digest="00"))


def test_own_loss_judges_outcomes_and_one_failure_is_counted_and_no_crash(folder: Path) -> None:
    lines = []
    rows: list[tuple[int, Any]] = [(7, 2), (7, "x"), (2, 90)]
    for second, (output, truth) in enumerate(rows):
        at = 1_772_409_600_000 + 1_000 * second
        lines.append(encode_line(Prediction(id=str(at), model="m", version="v1", output=output, ts=at)) + b"\n")
        lines.append(encode_line(Feedback(id=str(at), truth=truth, ts=at)) + b"\n")
    made = run(configured(folder, '["ours_1:off"]'), lines)
    found = [part.outcomes.losses.tolist() for part in parts_of(made.records)]
    np.testing.assert_array_equal(found, [[[0.5]], [[np.nan]], [[np.nan]]])
    assert made.counts == {"UNUSABLE_TRUTH": 2}


def test_digest_of_the_source_stands_in_the_configuration_record_and_changes_its_digest(folder: Path) -> None:
    config = configured(folder, '["ours_1:off"]')
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert config.of("m").losses == [LossSpec("ours_1:off", code_digest=digest)]
    record = configuration_record(config)
    assert record.config["models"]["m"]["losses"] == [{"name": "ours_1:off", "bound": 1.0, "source": digest}]
    assert msgspec.convert(record.config, Config) == config
    other = parse(
        'models: {m: {target: {kind: custom}, losses: ["ours_1:off"]}}', load_own_loss=lambda name, path: "0" * 64
    )
    assert other.digest() != config.digest()


def test_losses_of_the_program_are_recorded_without_a_source() -> None:
    record = configuration_record(parse("models: {m: }"))
    assert record.config["models"]["m"]["losses"] == [{"name": "zero_one", "bound": 1.0}]


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ('["nowhere_9:f"]', ["models.m.losses[0]: nowhere_9:f cannot be imported", "PYTHONPATH"]),
        ('["ours_2:f"]', ["models.m.losses[0]: ours_2:f cannot be imported", "not today"]),
        ('["ours_1:f"]', ["models.m.losses[0]: ", "ours_1 has no function 'f'"]),
        ('["ours_1:no"]', ["models.m.losses[0]: ", "ours_1 has no function 'no'"]),
        ('[{"ours_1:off": {scale: 3}}]', ["models.m.losses[0]: ours_1:off takes no options"]),
        ("[zero_one]", ["models.m.losses[0]: zero_one ", "target.kind is custom", 'losses: ["pkg.mod:fn"]']),
    ],
)
def test_own_loss_that_cannot_be_had_is_refused_with_its_place(folder: Path, losses: str, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as found:
        configured(folder, losses)
    for word in words:
        assert word in str(found.value)


def test_text_that_comes_from_no_file_loads_no_function() -> None:
    with pytest.raises(ConfigurationError, match=r"os:getcwd is a function of yours, and no code can be loaded here"):
        parse('models: {m: {losses: ["os:getcwd"]}}')
