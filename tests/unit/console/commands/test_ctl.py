"""`unship ctl` appends signed acts that the monitor follows, and refuses what is most likely mistyped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from actions.checkpoints import CHECKPOINT_KEY
from tests.commands import MonitorAndShell
from unship.keys import new_keys

CONFIG = "log: embedded:./log\nkeys: ./keys\nmodels: {fraud: {policy: {mode: act}}, idle: {}}\n"


class Bench(MonitorAndShell):
    """A monitor with two deployed versions, and what is asked of it."""

    def ctl(self, *arguments: str) -> Result:
        done = self.unship("ctl", *arguments, "--reason", "drill")
        self.live.step()
        return done

    @property
    def desired(self) -> Any:
        return self.live.pipeline.fold.models["fraud"].state.desired

    def reasons(self) -> list[str]:
        records = [record for record in self.log.read("decisions", 0) if record.key != CHECKPOINT_KEY]
        return [json.loads(record.value or b"")["reason"] for record in records]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    Path("unship.yaml").write_text(CONFIG)
    new_keys(tmp_path / "keys", "prod")
    return Bench(tmp_path, CONFIG)


def test_every_act_is_appended_signed_and_followed(bench: Bench) -> None:
    def done(*arguments: str) -> Any:
        result = bench.ctl(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{arguments[0]} fraud")
        return bench.desired

    assert done("hold", "fraud").locks.held
    assert done("pin", "fraud", "--override").locks.pinned
    assert not done("resume", "fraud").locks.held
    assert not done("unpin", "fraud").locks.pinned
    assert done("rollback", "fraud", "--to", "v1").serve == "v1"
    assert done("pin", "fraud", "--version", "v2", "--override").serve == "v2"
    assert [entry.version for entry in done("release", "fraud", "--version", "v2").quarantine] == []
    assert done("renew", "fraud").incarnation == 1
    for act in ("approve", "reject"):
        done(act, "fraud")
    assert bench.reasons() == ["OPERATOR_ROLLBACK", "OPERATOR_REFUSED", "OPERATOR_REFUSED"]
    assert bench.live.status().rejected == {}


def test_what_was_appended_is_printed_as_one_object(bench: Bench) -> None:
    shown = json.loads(bench.unship("--json", "ctl", "rollback", "fraud", "--to", "v1", "--reason", "leaks").stdout)
    assert (shown["topic"], shown["partition"], shown["offset"]) == ("operator", 0, 0)
    assert (shown["act"]["act"], shown["act"]["to"], shown["act"]["audience"]) == ("rollback", "v1", "prod")
    assert len(shown["act"]["nonce"]) == 32
    (record,) = bench.log.read("operator", 0)
    assert json.loads(record.value or b"") == shown["act"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["hold", "fruad"], "no model fruad is known; known are fraud; correct it, or add --override"),
        (["rollback", "fraud", "--to", "v3"], "no version v3 of fraud is known; known are v1, v2; correct it"),
        (["pin", "fraud", "--version", "v3"], "no version v3"),
        (["release", "fraud", "--version", "v3"], "no version v3"),
        (["rollback", "fraud"], "rollback needs --to V"),
        (["release", "fraud"], "release needs --version V"),
        (["hold", "fraud", "--to", "v1"], "--to does not go with hold, which takes --override"),
        (["rollback", "fraud", "--to", "v1", "--version", "v2"], "--version does not go with rollback"),
        (["renew", "fraud", "--override"], "--override does not go with renew"),
    ],
)
def test_act_that_is_most_likely_mistyped_is_refused_and_nothing_appended(
    bench: Bench, arguments: list[str], sentence: str
) -> None:
    done = bench.ctl(*arguments)
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.output
    assert bench.log.end("operator") == 0


def test_act_for_what_nobody_knows_that_is_forced_is_refused_by_the_monitor(bench: Bench) -> None:
    assert bench.ctl("hold", "tomorrow", "--force").exit_code == 0
    assert bench.ctl("pin", "fraud", "--version", "v3", "--force").exit_code == 0
    assert bench.reasons() == ["OPERATOR_REFUSED", "OPERATOR_REFUSED"]
    assert (list(bench.live.status().models), bench.desired.serve) == (["fraud"], "v2")


def test_act_for_what_nobody_knows_is_followed_with_override(bench: Bench) -> None:
    assert bench.ctl("hold", "tomorrow", "--override").exit_code == 0
    assert bench.ctl("pin", "fraud", "--version", "v3", "--override").exit_code == 0
    assert bench.live.pipeline.fold.models["tomorrow"].state.desired.locks.held
    assert bench.desired.serve == "v3"


def test_act_for_a_configured_model_without_an_event_is_followed(bench: Bench) -> None:
    assert bench.ctl("hold", "idle").exit_code == 0
    assert bench.live.pipeline.fold.models["idle"].state.desired.locks.held


@pytest.mark.parametrize("missing", ["operator.key", "trust.json"])
def test_act_needs_the_operators_key_and_the_audience(bench: Bench, missing: str) -> None:
    (Path("keys") / missing).unlink()
    done = bench.ctl("hold", "fraud")
    assert (done.exit_code, missing in done.stderr) == (2, True)
    assert bench.log.end("operator") == 0
