"""What a command imports before it begins: how long its start takes is mostly that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from console.cli import main
from tests.waiting import HANG_S

COMMAND = (
    "import atexit, sys; atexit.register(lambda: print('loaded', *sys.modules)); from console.cli import main; main()"
)
SLOW = {"river", "scipy", "sklearn", "pandas"}
OF_THE_WORK = SLOW | {"numpy", "msgspec", "orjson", "yaml", "rich", "aiokafka", "faust", "mode", "asyncio", "ssl"}
OURS = {"streams", "detectors", "actions", "unship"}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def packages(text: str) -> set[str]:
    modules = next(line for line in reversed(text.splitlines()) if line.startswith("loaded ")).split()[1:]
    return {name.partition(".")[0] for name in modules} | {name for name in modules if name.startswith("console.")}


def loaded_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-c", COMMAND, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(), timeout=HANG_S)
    return packages(done.stdout)


def test_help_imports_no_command_and_nothing_that_commands_need() -> None:
    loaded = loaded_by("--help")
    assert not loaded & (OF_THE_WORK | (OURS - {"unship"}))
    assert not [name for name in loaded if name.startswith("console.commands.")]


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_of_a_command_does_not_import_it(name: str) -> None:
    assert not loaded_by(name, "--help") & (OF_THE_WORK | (OURS - {"unship"}))


def test_every_command_has_a_line_in_the_help() -> None:
    assert all(command.get_short_help_str() for command in main.commands.values())
    listed = main.get_help(click.Context(main))
    assert all(f"  {name} " in listed for name in main.commands)


def test_monitor_on_the_embedded_log_watches_before_it_imports_river_or_a_client_of_kafka(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, "--log", f"embedded:{tmp_path / 'log'}", "run"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        while "run: watching" not in (line := process.stderr.readline()):
            assert line, "the monitor ended before it watched"
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 0
    assert not packages(stdout) & (SLOW | {"aiokafka", "faust", "mode"})


def test_monitor_on_kafka_imports_no_river_before_it_knows_the_configured_detectors() -> None:
    program = (
        "import sys, console.commands.run, console.commands.run_on_kafka, streams.app; print('loaded', *sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(), timeout=HANG_S)
    assert not packages(done.stdout) & SLOW
