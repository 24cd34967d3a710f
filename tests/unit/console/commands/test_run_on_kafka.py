"""A worker's end: in order within a time, at the second signal at once, and what is said of it."""

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from console.commands.run_on_kafka import shutdown_failure
from tests.waiting import HANG_S
from unship.errors import ConfigurationError

PROGRAM = """
import os, sys, time
from console.commands.run_on_kafka import end_by_signal

def cut_off():
    os.write(1, b"cut off\\n")
    os._exit(4)

end_by_signal(lambda: os.write(1, b"told\\n"), cut_off, float(sys.argv[1]))
os.write(1, b"runs\\n")
time.sleep(60)
"""


def started(limit_s: float) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(limit_s)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"runs\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once_what_takes_its_time(number: signal.Signals) -> None:
    process = started(1_000)
    assert process.stdout is not None
    process.send_signal(number)
    assert process.stdout.readline() == b"told\n"
    process.send_signal(number)
    assert process.communicate(timeout=HANG_S)[0] == b"cut off\n"
    assert process.returncode == 4


def test_end_that_takes_too_long_is_cut_off() -> None:
    process = started(0.0)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=HANG_S)[0] == b"told\ncut off\n"
    assert process.returncode == 4


def service(what: str, error: Exception | None = None, *, ended: bool = True) -> Any:
    return SimpleNamespace(what=what, error=error, ended=ended, explained=str)


def test_services_that_committed_everything_report_nothing() -> None:
    assert shutdown_failure([service("ingest"), service("control")]) is None


def test_service_that_lost_its_broker_is_named_with_the_code_for_that() -> None:
    failure = shutdown_failure([service("ingest", ended=False), service("control", KafkaConnectionError("gone"))])
    assert failure is not None
    assert failure[0] == 3
    assert failure[1].startswith("control ended without a broker")


def test_service_that_is_late_ends_as_timed_out() -> None:
    assert shutdown_failure([service("ingest", ended=False), service("control")]) == (
        4,
        "ingest did not end in time; what was not committed is read again",
    )


def test_service_that_waits_for_a_person_ends_well() -> None:
    assert shutdown_failure([service("ingest", ConfigurationError("topics renew"))]) is None
