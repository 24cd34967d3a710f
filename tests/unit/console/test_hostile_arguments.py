"""Errors quote arguments without what would steer a terminal."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from console.cli import main

HOSTILE = "x\x1b]0;owned\x07\u202e\r\x9b31m"


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", HOSTILE],
        ["explain", HOSTILE, "--in", "absent"],
        ["explain", "last", "--in", HOSTILE],
        ["-c", HOSTILE, "status"],
        [HOSTILE],
        [f"--{HOSTILE}"],
        ["status", f"--{HOSTILE}"],
        ["status", "m", HOSTILE],
        ["replay", "absent", "--batch", HOSTILE],
        # A name that is longer than the system takes.
        ["--log", f"embedded:{HOSTILE * 20}", "status"],
    ],
)
def test_argument_that_is_wrong_is_named_without_control_characters(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert all(each.isprintable() for each in done.output.replace("\n", ""))
    assert "Traceback" not in done.output
