"""The processes of the loop on an embedded log, the monitor and replicas, and what they wrote to it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import unship as library
from tests.commands import UNSHIP
from tests.waiting import HANG_S, until
from unship.commands import Command, decode_command
from unship.events import Deployment, Status
from unship.keys import DEPLOYER_FILE, TRUST_FILE, load_private_key, load_trust, new_nonce
from unship.log.embedded.log import EmbeddedLog, Message, Record
from unship.log.link import wall_ms
from unship.signing import COMMAND_TYPE, TrustedKey, sign_event, verify

CONFIG = "models: {fraud: {policy: {mode: act}, one_false_alarm_per: 1000, worse_by: 0.01}}\n"

# One replica of the model `fraud`, which always starts with v42 loaded. Until its input ends it answers a request every
# few milliseconds, by the version that served as the request began; while that is v42, three in ten by v41 beside it.
# Now and then an answer is sent twice, as by a client that tries again. It says which version gave the first answer,
# and at the end what it serves. What it obeyed is kept outside of the log's folder.
REPLICA = """
import json, os, random, sys, threading
from unship import Fleet
from unship.replica.fence import Serving

_, log, trust, state, name, pace_s = sys.argv
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
loaded, chance = {"v42"}, random.Random(f"{name} {os.getpid()}")
with Fleet("fraud", "v42", on_version=loaded.add, log=log, trust=trust, state=state, replica=name) as fleet:
    number = 0
    while not ended.wait(float(pace_s)):
        now = fleet.current
        assert now.version in loaded, (now, loaded)
        beside = now.version == "v42" and chance.random() < 0.3
        role, by = ("holdback", Serving("v41")) if beside else ("live", now)
        for _ in range(2 if chance.random() < 0.02 else 1):
            fleet.predicted(1, id=f"{name}-{os.getpid()}-{number}", role=role, as_=by)
        if number == 0:
            print(now.version, flush=True)
        number += 1
    fleet.flush(900.0)
    print(json.dumps({"version": fleet.current.version, "epoch": fleet.current.epoch,
                      "dropped": fleet.stats.dropped, "refused": fleet.stats.refused}))
"""


def start_monitor(folder: Path) -> "subprocess.Popen[str]":
    """Start `unship run` on the log of a folder; what it says is appended to `run.log` there."""
    with (folder / "run.log").open("ab") as log:
        return subprocess.Popen([str(UNSHIP), "run"], cwd=folder, stdout=log, stderr=log, text=True)


@contextmanager
def monitor(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a monitor; stop it at the end as an operator would."""
    process = start_monitor(folder)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=HANG_S)


def start_replica(folder: Path, name: str, pace_s: float) -> "subprocess.Popen[str]":
    """Start a replica on the log of a folder; what goes wrong with it is appended to `replicas.log` there."""
    log, trust = f"embedded:{folder / 'unship-data'}", str(folder / "unship-keys" / "trust.json")
    with (folder / "replicas.log").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", REPLICA, log, trust, str(folder / "replicas"), name, str(pace_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(library.__file__).parents[1])},
        )


def unship(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command to its end."""
    return subprocess.run([str(UNSHIP), *arguments], cwd=folder, capture_output=True, timeout=HANG_S, check=False)


def status(folder: Path) -> dict[str, Any]:
    """Return what `unship --json status` says."""
    shown: dict[str, Any] = json.loads(unship(folder, "--json", "status").stdout)
    return shown


def status_when(folder: Path, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for the status until it meets a condition, and return it."""
    shown: dict[str, Any] = {}

    def asked() -> bool:
        shown.clear()
        shown.update(status(folder))
        return met(shown)

    until(asked, lambda: f"{shown}\n{(folder / 'run.log').read_text()}")
    return shown


def deploy(log: EmbeddedLog, keys: Path) -> None:
    """Announce v42 live after v41, with v41 as holdback, signed by the deployer of a folder of keys."""
    key, audience = load_private_key(keys / DEPLOYER_FILE), load_trust(keys / TRUST_FILE).audience
    announced: list[tuple[str, Status]] = [("v41", "live"), ("v42", "live"), ("v41", "holdback")]
    for version, role in announced:
        event = Deployment(model="fraud", version=version, status=role)
        value, headers = sign_event(event, key, audience, wall_ms(), new_nonce())
        log.append("deployments", [Message(value, b"fraud", headers)])


def records(log: EmbeddedLog, topic: str, position: int = 0) -> list[Record]:
    """Read all records of a topic from a position on."""
    found: list[Record] = []
    while batch := log.read(topic, position, limit=10_000):
        found += batch
        position = batch[-1].offset + 1
    return found


def verified_commands(folder: Path, control: Sequence[Record]) -> list[Command]:
    """Return the commands that records hold, each of them signed by the monitor."""
    trust = load_trust(folder / "unship-keys" / "trust.json")
    commands = []
    for record in control:
        command = decode_command(record.value)
        assert isinstance(command, Command)
        assert isinstance(verify(record.value or b"", record.headers, trust, "controller", COMMAND_TYPE), TrustedKey)
        commands.append(command)
    return commands
