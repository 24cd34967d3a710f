"""The oracle of every fault can itself tell what was lost, counted twice, or obeyed in the wrong order."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.faults.oracle import (
    EARLY_MS,
    HORIZON_MS,
    Folded,
    Placed,
    Sources,
    everything_sent_is_there,
    joined,
    obeyed_what_was_desired,
)
from tests.faults.scene import Scene

FIRST, SECOND = (0, 1, 0), (0, 2, 0)
FOLDED = Folded({("m", FIRST): ("v1", "deploy", None), ("m", SECOND): ("v2", "deploy", None)}, [], Counter(), 0.0)
NOTHING = Sources(0, 0, 0, 0, {}, frozenset(), {})


def at(*clocks: int) -> list[Placed]:
    return [Placed(None, clock) for clock in clocks]


@pytest.mark.parametrize(
    ("predictions", "feedback", "meet"),
    [
        ([0], [0], True),
        ([0], [HORIZON_MS], True),
        ([0], [HORIZON_MS + 1], False),
        ([EARLY_MS], [0], True),
        ([EARLY_MS + 1], [0], False),
        ([0, 5], [9], True),
        ([0], [], False),
        # The first answer of the first prediction has a prediction of its own before it.
        ([0, HORIZON_MS + 2], [HORIZON_MS + 1], True),
    ],
)
def test_first_answer_and_first_prediction_that_may_have_each_other_meet(
    predictions: list[int], feedback: list[int], meet: bool
) -> None:
    assert joined(at(*predictions), at(*feedback)) is meet


def told(folder: Path, *lines: dict[str, Any]) -> Scene:
    (folder / "r1.obeyed").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scene = SimpleNamespace(folder=folder, brokers_lost=False, figures={})
    scene.obeyed = lambda name: Scene.obeyed(cast(Scene, scene), name)
    return cast(Scene, scene)


def line(epoch: tuple[int, int, int], version: str) -> dict[str, Any]:
    return {"model": "m", "epoch": epoch, "version": version}


def test_replica_that_goes_on_after_a_restart_obeyed_what_was_desired(tmp_path: Path) -> None:
    scene = told(tmp_path, line(FIRST, "v1"), line(FIRST, "v1"), line(SECOND, "v2"))
    sources = NOTHING._replace(told={("m", "r1"): [(0, FIRST, "v1"), (1, SECOND, "v2")]})
    obeyed_what_was_desired(scene, "r1", FOLDED, sources)


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([line(SECOND, "v2"), line(FIRST, "v1")], []),
        ([line(FIRST, "v2")], []),
        ([line((0, 9, 0), "v1")], []),
        ([line(FIRST, "v1")], [(0, SECOND, "v2")]),
        ([line(FIRST, "v1")], [(0, FIRST, "v2")]),
    ],
    ids=["older", "other version", "never desired", "answered under more", "answered otherwise"],
)
def test_replica_that_did_anything_else_is_found(tmp_path: Path, lines: list[Any], answers: list[Any]) -> None:
    with pytest.raises(AssertionError, match="r1"):
        obeyed_what_was_desired(told(tmp_path, *lines), "r1", FOLDED, NOTHING._replace(told={("m", "r1"): answers}))


def test_prediction_that_was_acknowledged_and_is_gone_is_found(tmp_path: Path) -> None:
    end = {"model": "m", "answered": 2, "boot": "b", "flushed": True, "dropped": {}}
    there = NOTHING._replace(ids=frozenset({"m-r1-b-0", "m-r1-b-1"}))
    everything_sent_is_there(told(tmp_path, end), there)
    with pytest.raises(AssertionError, match="r1 lost 1 predictions of m, the first is 1"):
        everything_sent_is_there(told(tmp_path, end), NOTHING._replace(ids=frozenset({"m-r1-b-0"})))
