"""Run brokers in the foreground: `make kafka`, and the one that the tests of a run share.

    python -m tests.kafka [--brokers N] [--port PORT]   until Ctrl-C
    python -m tests.kafka --while-locked FILE           until no process holds a shared lock on FILE any more
    python -m tests.kafka --fetch                       only get the jars

The first line on stdout is the address of the brokers, written when they take records.
"""

import argparse
import fcntl
import signal
import sys
import threading
from pathlib import Path

from tests.kafka.cluster import HOST, Cluster
from tests.kafka.jars import KafkaUnavailable, fetch, jars, java, version

LOOK_EVERY_S = 0.5


def main() -> int:
    """Run until told to stop; 1 if there is no Kafka here."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka")
    parser.add_argument("--brokers", type=int, default=1)
    parser.add_argument("--port", type=int)
    parser.add_argument("--while-locked", type=Path, metavar="FILE")
    parser.add_argument("--fetch", action="store_true")
    arguments = parser.parse_args()
    try:
        java()
        # A test that shares a broker downloads nothing; everybody else who gets here asked for Kafka.
        if arguments.while_locked is None:
            fetch()
        folder = jars()
    except KafkaUnavailable as error:
        print(f"kafka: {error}", file=sys.stderr)
        return 1
    if arguments.fetch:
        print(f"kafka: Apache Kafka {version()} is in {folder}")
        return 0
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with Cluster(arguments.brokers, port=arguments.port) as kafka:
        print(kafka.bootstrap, flush=True)
        if arguments.while_locked is None:
            said = f"kafka: Apache Kafka {version()} on {kafka.bootstrap}; use --log {kafka.log}; Ctrl-C ends it"
            print(f"{said} and removes its data", file=sys.stderr)
        while not stop.wait(LOOK_EVERY_S):
            dead = [broker for broker in kafka.brokers if not broker.alive]
            if dead:
                print(f"kafka: the broker on {HOST}:{dead[0].port} died: {dead[0].output()}", file=sys.stderr)
                return 1
            if arguments.while_locked is not None and not _locked(arguments.while_locked):
                break
    return 0


def _locked(path: Path) -> bool:
    """Say whether any process, dead ones not counted, still holds a lock on the file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
