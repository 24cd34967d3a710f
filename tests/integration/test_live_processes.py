"""The monitor as a process on an embedded log: what it says and how it ends where something is not in order."""

from pathlib import Path
from typing import Any

import pytest

from tests.processes import (
    CONFIG,
    monitor,
    status_when,
    unship,
)
from tests.waiting import HANG_S
from unship import Fleet
from unship.keys import new_keys
from unship.log.embedded.log import EmbeddedLog, Message


def test_status_before_anything_ran_says_how_to_start(tmp_path: Path) -> None:
    done = unship(tmp_path, "status")
    assert done.returncode == 2
    assert b"there is no log" in done.stderr


def test_status_beside_what_replicas_keep_makes_no_log(tmp_path: Path) -> None:
    (tmp_path / "unship-data" / "replicas").mkdir(parents=True)
    assert unship(tmp_path, "status").returncode == 2
    assert [path.name for path in (tmp_path / "unship-data").iterdir()] == ["replicas"]


def test_run_ends_when_its_log_vanishes_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    folder, away = tmp_path / "unship-data", tmp_path / "away"
    with EmbeddedLog(folder) as log:
        with monitor(tmp_path) as process:
            assert log.wait({"ledger": 0}, HANG_S)
            folder.rename(away)
            assert process.wait(HANG_S) == 2
        assert "the log vanished; bring it back, and start the monitor again" in (tmp_path / "run.log").read_text()
        assert not folder.exists()
        away.rename(folder)
        log.append("predictions", [Message(b'{"id":"p","model":"m","version":"v","output":1}')])
        with monitor(tmp_path):
            status_when(tmp_path, lambda shown: "m" in shown["models"])


def test_run_ends_when_another_log_takes_the_place_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "unship-data"
    with EmbeddedLog(folder) as log, EmbeddedLog(tmp_path / "other"), monitor(tmp_path) as process:
        assert log.wait({"ledger": 0}, HANG_S)
        # Both names change at once for whoever looks by the path of the file.
        (tmp_path / "other" / "log.sqlite3").replace(folder / "log.sqlite3")
        assert process.wait(HANG_S) == 2
    assert "another log took the place" in (tmp_path / "run.log").read_text()


def test_run_with_a_key_that_no_replica_trusts_says_so_before_it_starts(tmp_path: Path) -> None:
    for name in ("unship-keys", "others"):
        new_keys(tmp_path / name)
    (tmp_path / "others" / "controller.key").replace(tmp_path / "unship-keys" / "controller.key")
    done = unship(tmp_path, "run")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"replicas would refuse every command" in done.stderr
    assert not (tmp_path / "unship-data").exists()


def test_replica_that_trusts_other_keys_is_not_counted_as_obeying(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    new_keys(tmp_path / "others")
    log = f"embedded:{tmp_path / 'unship-data'}"

    def states(shown: dict[str, Any]) -> list[tuple[str, str, bool]]:
        replicas = shown["models"]["fraud"]["replicas"] if shown["models"] else {}
        return [(each["version"], each["stage"], each["epoch"] > [0, 0, 0]) for each in replicas.values()]

    with (
        monitor(tmp_path),
        Fleet("fraud", "v42", log=log, trust=tmp_path / "unship-keys" / "trust.json", replica="r-1") as fleet,
    ):
        fleet.deployed(key=tmp_path / "unship-keys" / "deployer.key")
        status_when(tmp_path, lambda shown: states(shown) == [("v42", "serving", True)])
        assert unship(tmp_path, "status").returncode == 0
        with Fleet("fraud", "v42", log=log, trust=tmp_path / "others" / "trust.json", replica="r-2") as stranger:
            # The monitor asserts the same command again within ten seconds, and that is refused.
            expected = [("v42", "serving", True), ("v42", "refused", False)]
            status_when(tmp_path, lambda shown: states(shown) == expected)
            done = unship(tmp_path, "status")
            assert stranger.stats.refused["UNKNOWN_KEY"] >= 1
    assert (done.returncode, b" 1/2 " in done.stdout) == (1, True), done.stdout


def test_emit_refuses_what_the_monitor_would_reject(tmp_path: Path) -> None:
    done = unship(tmp_path, "emit", "prediction", '{"id": ""}')
    assert done.returncode == 2
    assert b"would be rejected: BAD_EVENT" in done.stderr


@pytest.mark.parametrize("command", ["run", "status", "record", "emit"])
def test_command_without_its_broker_says_so_in_one_line_and_ends_with_three(tmp_path: Path, command: str) -> None:
    more = {"record": ["r.ndjson"], "emit": ["feedback", '{"id": "p-1", "truth": 1}']}.get(command, [])
    # Nobody listens on the port for discarded data.
    done = unship(tmp_path, "-q", "--log", "kafka://127.0.0.1:9", command, *more)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert b"127.0.0.1:9" in done.stderr


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    assert unship(tmp_path, "keys", "new").returncode == 0
    before = (tmp_path / "unship-keys" / "trust.json").read_bytes()
    assert unship(tmp_path, "keys", "new").returncode == 2
    assert (tmp_path / "unship-keys" / "trust.json").read_bytes() == before
