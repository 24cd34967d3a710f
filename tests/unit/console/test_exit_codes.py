"""Each way in which a command ends has an exit code of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner

from console.cli import Group
from console.settings import Exit
from unship.errors import BrokerUnreachable, ConfigurationError, TimedOut


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigurationError("wrong key"), Exit.USAGE, "unship: wrong key\n"),
        (BrokerUnreachable("no broker"), Exit.UNREACHABLE, "unship: no broker\n"),
        (TimedOut("too late"), Exit.TIMED_OUT, "unship: too late\n"),
        (PermissionError(13, "Permission denied", "log"), Exit.USAGE, "unship: log: Permission denied; check its"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "unship: interrupted\n"),
    ],
)
def test_error_of_a_command_gives_its_code_and_one_line(error: BaseException, code: Exit, message: str) -> None:
    done = CliRunner().invoke(Group(commands={"fail": click.Command("fail", callback=raising(error))}), ["fail"])
    assert (done.exit_code, done.output.count("\n")) == (code, 1)
    assert done.output.startswith(message)


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_reader_that_leaves_the_pipe_ends_the_command_without_a_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from console.cli import main; main()", "schema", "events"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (Exit.PIPE_CLOSED, b"")


INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "console.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
import console
console.main()
"""


def test_interrupt_while_the_code_of_a_command_is_imported_ends_the_process_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
