"""One broker for all tests of a run, whichever worker asks first.

Workers of a parallel run are processes. The first that needs a broker starts it as a process of its own and writes its
address into a file; all that use it hold a shared lock on another file, which the kernel drops when they end, however
they end. The broker's process ends when no lock is left, so neither a killed run nor one worker's early end matters.
"""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from tests.kafka.jars import KafkaUnavailable, jars, java
from unship.topics import TopicNames

VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
ROOT = Path(__file__).resolve().parents[2]


class SharedKafka(NamedTuple):
    """A broker, and the part of its names that belongs to one test."""

    bootstrap: str
    prefix: str

    @property
    def log(self) -> str:
        """Return the address as unship's configuration takes it."""
        return f"kafka://{self.bootstrap}"

    @property
    def names(self) -> TopicNames:
        """Return the names of this test's topics."""
        return TopicNames(self.prefix)


def prefix_of(test: str) -> str:
    """Return a prefix of topics that no other test uses, of this run or of an earlier one.

    >>> prefix_of("test_x[a b]").startswith("test_x_a_b_.")
    True
    """
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', test)[:80]}.{os.urandom(4).hex()}."


def skip_or_fail(missing: str) -> NoReturn:
    """Skip a test for want of a program, but not where all tests are to run and nobody would notice."""
    if os.environ.get("CI") and os.environ.get("UNSHIP_TESTS") == "all":
        pytest.fail(missing)
    pytest.skip(missing)


def require_kafka() -> None:
    """Return if brokers can be started here.

    Raises:
        KafkaUnavailable: with what is missing.
    """
    java()
    jars()


@contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """Yield the address of the run's broker, started if this is the first use.

    Args:
        folder: of this run, the same for all its workers.

    Raises:
        KafkaUnavailable: There is none, and none can be started.
    """
    if given := os.environ.get(VARIABLE):
        yield given
        return
    require_kafka()
    address = folder / "kafka-address"
    with (folder / "kafka-users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (folder / "kafka-starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not address.exists():
                address.write_text(_start(folder / "kafka-users", folder / "kafka-output"), encoding="utf-8")
        yield address.read_text(encoding="utf-8")


def _start(users: Path, output: Path) -> str:
    command = [sys.executable, "-m", "tests.kafka", "--while-locked", str(users)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk")])}
    with output.open("ab") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        address = process.stdout.readline().decode().strip()
    if not address:
        process.wait()
        raise KafkaUnavailable(f"the broker did not start: {output.read_text(encoding='utf-8', errors='replace')}")
    # It ends by itself, after this process.
    process.returncode = 0
    return address
