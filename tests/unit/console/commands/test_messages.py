"""What the command line says to somebody who is tired: what is wrong, where, and what to do."""

from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

from console.cli import main
from unship.keys import new_keys
from unship.log.embedded.log import EmbeddedLog


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, keys, and a log that nobody has written to."""
    monkeypatch.chdir(tmp_path)
    Path("unship.yaml").write_text("log: embedded:./log\n")
    new_keys(Path("unship-keys"))
    EmbeddedLog(Path("log")).close()
    return tmp_path


def unship(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status", "fraud"], "no model fraud is known; known are none yet; is the monitor running?"),
        (["ctl", "renew", "fraud", "--reason", "x", "--incarnation", "7"], "no model fraud is known"),
        (["explain", "last"], "there is no decision yet"),
        (["--log", "embedded:elsewhere", "status"], "start one with: unship --log embedded:elsewhere run"),
        (["--log", "kafak://h:1", "status"], "expected embedded:DIR or kafka://HOST:PORT, was kafak://h:1"),
        (["--level", "loud", "status"], "'debug', 'info', 'warning', 'error'"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_way_out(folder: Path, arguments: list[str], sentence: str) -> None:
    done = unship(*arguments)
    assert (done.exit_code, sentence in done.output) == (2, True), done.output


def test_status_of_a_log_without_anything_says_so(folder: Path) -> None:
    done = unship("status")
    assert (done.exit_code, done.output) == (0, "no model has been seen yet\n")


@pytest.mark.parametrize("content", ["", "log: embedded:./log\n", '{"type":"feedback","id":"a","truth":1}\n'])
def test_audit_of_what_holds_nothing_to_compare_does_not_pass(folder: Path, content: str) -> None:
    Path("wrong").write_text(content)
    done = unship("audit", "wrong")
    assert (done.exit_code, "nothing can be compared" in done.output) == (2, True), done.output


def test_file_of_another_user_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("console.commands.status.ReadOnlyLog", refused)
    done = unship("status")
    assert (done.exit_code, done.output) == (2, "unship: log: Permission denied; check its owner and mode\n")
