"""Replicas in processes of their own on one embedded log: all obey, each proves it, none forgets when it is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import unship
from tests.waiting import HANG_S
from unship.events import Ack
from unship.testing import UnshipEmbedded

SEED = 41
KILLS = 10

# Answers requests until its input ends: one answer per millisecond, each by the version that served as it began.
REPLICA = """
import os, sys, threading
from unship import Fleet

_, log, trust, replica = sys.argv
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
models = {"v42": lambda: 42}

def load(version):
    models[version] = lambda: int(version[1:])

with Fleet("fraud", "v42", on_version=load, log=log, trust=trust, replica=replica) as fleet:
    number = 0
    while not ended.wait(0.001):
        now = fleet.current
        fleet.predicted(models[now.version](), id=f"{replica}-{os.getpid()}-{number}", as_=now)
        number += 1
    fleet.flush(900.0)
    print(fleet.stats.sent, sum(fleet.stats.dropped.values()), number)
"""


@contextmanager
def replica(bench: UnshipEmbedded, name: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", REPLICA, bench.log, str(bench.trust), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(unship.__file__).parents[1])},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def of(events: list[Any], name: str, process: subprocess.Popen[str]) -> list[Any]:
    return [event for event in events if event.id.startswith(f"{name}-{process.pid}-")]


def serving(acks: list[Any], name: str) -> Ack | None:
    return next((ack for ack in reversed(acks) if ack.replica == name and ack.stage == "serving"), None)


def all_serve(names: tuple[str, ...], version: str, epoch: tuple[int, int, int]):
    def met(acks: list[Any]) -> bool:
        newest = [serving(acks, name) for name in names]
        return all(ack is not None and (ack.serving, ack.epoch) == (version, epoch) for ack in newest)

    return met


def test_replicas_of_two_processes_obey_one_command_and_their_answers_prove_it(unship_embedded):
    bench, names = unship_embedded, ("r-1", "r-2")
    with replica(bench, "r-1") as first, replica(bench, "r-2") as second:
        bench.until("acks", all_serve(names, "v42", (0, 0, 0)), HANG_S)
        epoch = bench.command("fraud", "v41", quarantine=["v42"])
        bench.until("acks", all_serve(names, "v41", epoch), HANG_S)
        for name, process in (("r-1", first), ("r-2", second)):
            bench.until(
                "predictions",
                lambda events, who=name, its=process: any(event.epoch == epoch for event in of(events, who, its)),
                HANG_S,
            )
            out, _ = process.communicate("", timeout=HANG_S)
            sent, dropped, made = map(int, out.split())
            answers = of(bench.events("predictions"), name, process)
            assert (len(answers), sent, dropped) == (made, made, 0)
            # The label of an answer is the version that gave it, and after the switch no other version answers.
            assert all(event.output == int(event.version[1:]) for event in answers)
            versions = [event.version for event in answers]
            assert versions == sorted(versions, reverse=True)
            assert {event.version: event.epoch for event in answers} == {"v42": None, "v41": epoch}


def test_replica_killed_at_any_moment_never_serves_what_was_taken_back(unship_embedded):
    bench, chance = unship_embedded, random.Random(SEED)
    epoch = bench.command("fraud", "v41", quarantine=["v42"])
    for number in range(KILLS):
        with replica(bench, "r-1") as process:
            bench.until(
                "predictions", lambda events, its=process: len(of(events, "r-1", its)) > chance.randrange(1, 40), 60
            )
            if number % 3 == 1:
                epoch = bench.command("fraud", f"v{40 - number}", quarantine=["v42"])
            process.send_signal(signal.SIGKILL)
            process.wait()
        answers = of(bench.events("predictions"), "r-1", process)
        assert "v42" not in {event.version for event in answers}
        epochs = [event.epoch for event in answers]
        assert epochs == sorted(epochs)
        assert len({event.id for event in answers}) == len(answers)
    everything = [event.epoch for event in bench.events("predictions")]
    assert everything == sorted(everything)
    with replica(bench, "r-1"):
        bench.until("acks", all_serve(("r-1",), f"v{40 - (KILLS - 3)}", epoch), HANG_S)
