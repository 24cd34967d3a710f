"""Acts of operators that come in the wrong order, or name what nobody knows, are each answered by one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from tests.sites import Site

START = 1_767_600_000_000
CONFIG = parse("models: {m: {policy: {mode: act}}}")


class Bench:
    """A monitor in mode act with two deployed versions, of which v2 serves."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder, [], CONFIG)
        self.site.clock.now = START
        self.live = self.site.monitor()
        for version in ("v1", "v2"):
            self.site.deploy({"model": "m", "version": version, "status": "live"})
            self.round()

    def round(self) -> None:
        self.site.clock.now += 1_000
        self.live.step()
        self.live.publish()

    def answer(self, act: str, **fields: Any) -> str | None:
        """Order an act; return the sentence by which it was refused, None if it was followed."""
        before = len(self.site.journal())
        self.site.order(act=act, **fields)
        self.round()
        found = [msgspec.json.decode(line) for line in self.site.journal()[before:]]
        refused = [line["evidence"]["missing"] for line in found if line["reason"] == "OPERATOR_REFUSED"]
        assert len(refused) <= 1
        assert all(line["evidence"]["operator"]["act"] == act for line in found)
        return refused[0] if refused else None

    @property
    def serves(self) -> str | None:
        return self.live.status().models["m"].desired


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


@pytest.mark.parametrize(
    ("act", "fields", "sentence"),
    [
        ("approve", {}, "no proposal is open, so there is nothing to approve"),
        ("reject", {"decision": "d-1"}, "no proposal is open, so there is nothing to reject"),
        ("resume", {}, "nothing is on hold, and no limit has stopped automatic acts, so there is nothing to resume"),
        ("unpin", {}, "no version is pinned, so there is nothing to unpin: pin one first"),
        ("release", {"version": "v1"}, "v1 is not in quarantine, so there is nothing to release; there are none"),
        ("release", {}, "release needs the version, --version V: in quarantine are none"),
        ("rollback", {"to": "v2"}, "v2 serves already; rollback needs a version other than the one that serves"),
        ("rollback", {}, "rollback needs a version other than the one that serves, --to V: known are v1"),
    ],
)
def test_act_in_the_wrong_order_is_answered_by_a_sentence_and_changes_nothing(
    bench: Bench, act: str, fields: dict[str, Any], sentence: str
) -> None:
    before = bench.live.status().models["m"].epoch
    assert (bench.answer(act, **fields) or "").startswith(sentence)
    assert (bench.serves, bench.live.status().models["m"].epoch) == ("v2", before)


def test_act_under_a_hold_is_refused_until_it_is_resumed_or_overridden(bench: Bench) -> None:
    assert bench.answer("hold") is None
    assert "resume them first, or repeat the act with --override" in (bench.answer("rollback", to="v1") or "")
    assert bench.serves == "v2"
    assert bench.answer("rollback", to="v1", override=True) is None
    assert bench.serves == "v1"
    assert bench.answer("resume") is None
    assert bench.answer("release", version="v2") is None
    assert bench.answer("release", version="v2") is not None


@pytest.mark.parametrize(("act", "field"), [("rollback", "to"), ("pin", "version")])
def test_version_that_nobody_knows_is_refused_with_the_known_ones_and_override_lets_it_serve(
    bench: Bench, act: str, field: str
) -> None:
    sentence = "no version v99 is known; known are v1, v2: correct it, or repeat with --override"
    assert bench.answer(act, **{field: "v99"}) == sentence
    assert bench.serves == "v2"
    assert bench.answer(act, override=True, **{field: "v99"}) is None
    assert bench.serves == "v99"


def test_act_on_a_model_that_nobody_knows_is_refused_each_time_and_makes_no_model(bench: Bench) -> None:
    for _ in range(2):
        sentence = "no model mm is known; known are m: correct it, or repeat the act with --override"
        assert bench.answer("hold", model="mm") == sentence
        assert list(bench.live.status().models) == ["m"]
    assert bench.answer("hold", model="mm", override=True) is None
    assert bench.live.pipeline.fold.models["mm"].state.desired.locks.held
    # It has a place now, and the next act finds it.
    assert bench.answer("resume", model="mm") is None
    records = [msgspec.json.decode(line) for line in bench.site.journal()]
    assert records[1]["digests"]["previous"] != records[0]["digests"]["previous"]
