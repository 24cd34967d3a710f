"""`unship prove` counts the answers since the newest command, and names replicas that contradict their acks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from console.cli import main


def unship(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def proven(*arguments: str, code: int) -> Any:
    done = unship("--json", "prove", "fraud", *arguments)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def rolled_back(site: Any) -> None:
    assert site.ctl("rollback", to="v1") == 0
    site.live.save_snapshot()


def test_fleet_that_obeys_is_proven_by_the_shares_of_its_answers(served: Any) -> None:
    rolled_back(served)
    done = unship("prove", "fraud")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fraud: v1 is to serve since ")
    assert lines[1].split() == ["ROLE", "VERSION", "EPOCH", "ANSWERS", "SHARE", "NEWEST"]
    assert lines[2].split()[:2] == ["live", "v1"]
    assert "living replicas: 2 (obeys 2)" in lines
    assert [line.split()[:3] for line in lines[-2:]] == [["r-1", "obeys", "by"], ["r-2", "obeys", "by"]]


def test_replica_that_acknowledges_and_serves_another_version_is_named_with_its_share(served: Any) -> None:
    def lie(epoch: Any, version: str) -> None:
        served.ack("r-3", "serving", epoch, version)
        served.answer("r-3", (0, 1, 0), "v2")

    served.obeying("r-3")
    served.work(1)
    served.replicas["r-3"] = lie
    assert served.ctl("rollback", 12.0, to="v1") == 4
    found = proven(code=1)
    assert (found["desired"], found["holds"]) == ("v1", False)
    assert found["replicas"]["r-3"]["kind"] == "lying"
    assert found["replicas"]["r-3"]["why"] == "acknowledged v1, but answers with v2 under epoch 0.1.0"
    shares = {(each["version"], each["role"]): each["share"] for each in found["answers"]}
    assert shares["v2", "live"] == pytest.approx(1 / 3, abs=0.1)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_recording_and_log_of_others_prove_the_same(served: Any) -> None:
    rolled_back(served)
    of_log = proven(code=0)
    assert proven("--in", "embedded:log", code=0)["answers"] == of_log["answers"]
    assert unship("record", "all.ndjson").exit_code == 0
    recorded = proven("--in", "all.ndjson", code=0)
    assert (recorded["answers"], recorded["since_ts"]) == (of_log["answers"], of_log["since_ts"])
    assert {name: each["kind"] for name, each in recorded["replicas"].items()} == {"r-1": "obeys", "r-2": "obeys"}


def test_model_that_nobody_knows_or_commands_cannot_be_proven(served: Any) -> None:
    done = unship("prove", "fruad")
    assert (done.exit_code, "no model fruad is known; known are fraud" in done.stderr) == (2, True)
    assert unship("record", "all.ndjson").exit_code == 0
    done = unship("prove", "other", "--in", "all.ndjson")
    assert (done.exit_code, "holds no command for other" in done.stderr) == (2, True)
