"""The whole loop under fire: whoever is killed, whenever and how often, the log shows no trace of it.

What is expected is computed here a second time, from the topics alone and by other means than the monitor's.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actions.checkpoints import CHECKPOINT_KEY
from tests.processes import (
    CONFIG,
    deploy,
    records,
    start_monitor,
    start_replica,
    status_when,
    unship,
    verified_commands,
)
from tests.waiting import HANG_S
from unship import Feedback
from unship.codec import decode_value
from unship.events import Ack, Epoch
from unship.log.embedded.log import EmbeddedLog, Message, Record
from unship.replica.fence import NO_EPOCH

SEED = 7
KILLS = int(os.environ.get("UNSHIP_KILLS", "50"))
"""More of them are a longer run of the same kind: UNSHIP_KILLS=500."""

REPLICAS = ("r-1", "r-2", "r-3")
MONITOR = "monitor"
PACE_S = 0.01
LIVE_BEFORE_DECAY = 1_200


class Labels:
    """The source of labels: reads every answer from the log and reports its truth, a second time now and then."""

    def __init__(self, log: EmbeddedLog, source: Feedback, chance: random.Random) -> None:
        self.position = 0
        self.answered: Counter[str] = Counter()
        self.live = 0
        self.decayed = False
        self._log = log
        self._source = source
        self._chance = chance

    def send(self) -> None:
        """Report the truths of what was answered since the last call."""
        answers = records(self._log, "predictions", self.position)
        for record in answers:
            answer = json.loads(record.value or b"")
            self.answered[answer["id"].rpartition("-")[0]] += 1
            live = answer["version"] == "v42"
            self.live += live
            truth = int(self._chance.random() > (0.6 if live and self.decayed else 0.05))
            kind = self._chance.random()
            if kind < 0.95:
                self._source.truth(answer["id"], truth)
            if kind < 0.04:
                # A job that ran twice; of a few it says something else the second time.
                self._source.truth(answer["id"], 1 - truth if kind < 0.01 else truth)
        if answers:
            self.position = answers[-1].offset + 1
            assert self._source.flush(HANG_S)


class Loop:
    """The processes by name; each is started again under the same name."""

    def __init__(self, folder: Path, log: EmbeddedLog, labels: Labels) -> None:
        self.folder = folder
        self.log = log
        self.labels = labels
        self.killed: Counter[str] = Counter()
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.ledger_begun = 0
        # By replica and process: the highest epoch that the replica had acknowledged when the process was started.
        self.owed: dict[str, Epoch] = {}
        # What the processes that were killed said of their first answer, with what they owed then.
        self.first: list[tuple[Epoch, str]] = []

    def start(self, name: str) -> None:
        if name == MONITOR:
            self.ledger_begun = self.log.end("ledger")
            self.running[name] = start_monitor(self.folder)
            return
        acks = [ack for ack in map(ack_of, records(self.log, "acks")) if ack.replica == name]
        self.running[name] = process = start_replica(self.folder, name, PACE_S)
        self.owed[f"{name}-{process.pid}"] = max((ack.epoch for ack in acks), default=NO_EPOCH)

    def progress(self, name: str) -> int:
        """Return how many records a process has written since it was started: its own answers, or the ledger's."""
        if name == MONITOR:
            return self.log.end("ledger") - self.ledger_begun
        return self.labels.answered[f"{name}-{self.running[name].pid}"]

    def until(self, met: Callable[[], bool]) -> None:
        """Wait for a condition; labels flow meanwhile, and nobody ends by itself."""
        deadline = time.monotonic() + HANG_S
        while not met():
            for name, process in self.running.items():
                assert process.poll() is None, f"{name} ended by itself\n{self.said()}"
            assert time.monotonic() < deadline, self.said()
            self.log.wait({"predictions": self.labels.position}, 0.1)
            self.labels.send()

    def end(self, name: str, number: signal.Signals) -> str:
        """End a process by a signal, and count it if that was a kill."""
        process = self.running.pop(name)
        process.send_signal(number)
        said, _ = process.communicate(timeout=HANG_S)
        self.killed[name] += process.returncode == -signal.SIGKILL
        if name != MONITOR and said:
            self.first.append((self.owed[f"{name}-{process.pid}"], said.split()[0]))
        assert process.returncode in (0, -signal.SIGKILL, -signal.SIGTERM), self.said()
        return said

    def finish(self, name: str) -> Any:
        """Let a replica end by itself, and return what it says of itself then."""
        process = self.running.pop(name)
        said, _ = process.communicate("", timeout=HANG_S)
        assert process.returncode == 0, self.said()
        return json.loads(said.splitlines()[-1])

    def said(self) -> str:
        files = (self.folder / "run.log", self.folder / "replicas.log")
        return "\n".join(file.read_text() for file in files if file.exists())


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    with EmbeddedLog(tmp_path / "unship-data", fsync=False) as log, Feedback(f"embedded:{log.folder}") as source:
        deploy(log, tmp_path / "unship-keys")
        started = Loop(tmp_path, log, Labels(log, source, random.Random(SEED)))
        try:
            for name in (MONITOR, *REPLICAS):
                started.start(name)
            yield started
        finally:
            for process in started.running.values():
                process.kill()
                process.communicate()


def fire(loop: Loop, chance: random.Random) -> None:
    """End one process somewhere between its start and its fortieth record, and start it again."""
    name = MONITOR if chance.random() < 0.3 else chance.choice(REPLICAS)
    wanted = chance.choice((0, 1, chance.randrange(40)))
    loop.until(lambda: loop.progress(name) >= wanted)
    # Where exactly it is hit is up to the scheduler.
    loop.log.wait({"ledger": loop.log.end("ledger")}, chance.random() * 0.2)
    if name == MONITOR:
        how = chance.choice(("kill", "kill", "stop", "kill while it stops"))
        if how == "stop":
            # It saves a snapshot, from which its successors begin.
            loop.end(MONITOR, signal.SIGTERM)
        else:
            if how == "kill while it stops":
                loop.running[MONITOR].send_signal(signal.SIGTERM)
                loop.log.wait({"snapshots": loop.log.end("snapshots")}, chance.random() * 0.05)
            loop.end(MONITOR, signal.SIGKILL)
        # Nobody needs the monitor to go on answering.
        answered = {replica: loop.progress(replica) for replica in REPLICAS}
        loop.until(lambda: all(loop.progress(replica) > answered[replica] for replica in REPLICAS))
        loop.log.append("feedback", [Message(b"{", b"bad")])
    else:
        loop.end(name, signal.SIGKILL)
    loop.start(name)


def test_fifty_kills_of_monitor_and_replicas_lose_nothing_and_bring_nothing_back(loop: Loop) -> None:
    chance = random.Random(SEED)
    while (killed := loop.killed.total()) < KILLS:
        if killed >= KILLS // 4 and not loop.labels.decayed:
            loop.until(lambda: loop.labels.live >= LIVE_BEFORE_DECAY)
            loop.labels.decayed = True
        if killed >= KILLS * 3 // 4:
            # The rest is fired at a loop that has taken the version back.
            loop.until(lambda: bool(rollbacks(loop.log)))
        fire(loop, chance)
    loop.until(lambda: all(loop.progress(name) >= 20 for name in REPLICAS))
    serving = [loop.finish(name) for name in REPLICAS]
    loop.labels.send()

    outcomes, rejected = counted_again(loop.log)

    def all_known(now: Any) -> bool:
        found = now["models"]["fraud"]
        stages = [each["stage"] for each in found["replicas"].values()]
        return found["outcomes"] == outcomes and stages == ["left"] * len(REPLICAS)

    shown = status_when(loop.folder, all_known)
    assert {code: count for code, count in shown["rejected"].items() if code in rejected} == rejected
    loop.end(MONITOR, signal.SIGTERM)
    # Each bad record is written down once, whoever was killed while it was read.
    dead = [json.loads(letter.value or b"")["offset"] for letter in records(loop.log, "rejected")]
    assert len(dead) == len(set(dead)) == rejected["BAD_JSON"]

    epoch = check_commands(loop)
    fraud = shown["models"]["fraud"]
    assert (fraud["desired"], fraud["quarantine"], fraud["epoch"]) == ("v41", ["v42"], list(epoch))
    assert {name: (each["version"], each["epoch"]) for name, each in fraud["replicas"].items()} == {
        name: ("v41", list(epoch)) for name in REPLICAS
    }
    assert serving == [{"version": "v41", "epoch": list(epoch), "dropped": {}, "refused": {}}] * len(REPLICAS)
    check_audit(loop)
    away = serve_while_the_log_is_away(loop)
    assert (away["version"], away["epoch"]) == ("v41", list(epoch))
    check_replicas(loop, epoch)


def serve_while_the_log_is_away(loop: Loop) -> Any:
    """Start a replica that can read no command: what it obeyed before is all that it has."""
    loop.log.folder.rename(loop.folder / "away")
    # Nor can it make a log of its own there.
    loop.log.folder.touch()
    loop.start(REPLICAS[0])
    said = loop.running[REPLICAS[0]].stdout
    assert said is not None
    assert said.readline() == "v41\n"
    loop.log.folder.unlink()
    (loop.folder / "away").rename(loop.log.folder)
    loop.until(lambda: loop.progress(REPLICAS[0]) > 0)
    return loop.finish(REPLICAS[0])


def counted_again(log: EmbeddedLog) -> tuple[dict[str, int], dict[str, int]]:
    """Join answers and truths by their ids: the labelled answers of each version, and what was set aside and why."""
    rejected = dict.fromkeys(("BAD_JSON", "CONFLICTING_FEEDBACK", "DUPLICATE", "DUPLICATE_FEEDBACK"), 0)
    versions: dict[str, str] = {}
    for record in records(log, "predictions"):
        answer = json.loads(record.value or b"")
        rejected["DUPLICATE"] += answer["id"] in versions
        versions[answer["id"]] = answer["version"]
    truths: dict[str, int] = {}
    for record in records(log, "feedback"):
        if record.key == b"bad":
            rejected["BAD_JSON"] += 1
            continue
        label = json.loads(record.value or b"")
        if label["id"] in truths:
            same = truths[label["id"]] == label["truth"]
            rejected["DUPLICATE_FEEDBACK" if same else "CONFLICTING_FEEDBACK"] += 1
        truths.setdefault(label["id"], label["truth"])
    return dict(Counter(versions[answer] for answer in truths)), rejected


def rollbacks(log: EmbeddedLog) -> list[dict[str, Any]]:
    journal = [record for record in records(log, "decisions") if record.key != CHECKPOINT_KEY]
    decisions = [json.loads(record.value or b"") for record in journal]
    return [decision for decision in decisions if decision["action"] == "rollback"]


def check_commands(loop: Loop) -> Epoch:
    """Check that one decision took the version back and that every command follows from it; return its epoch."""
    (rollback,) = rollbacks(loop.log)
    assert (rollback["version"], rollback["to"]) == ("v42", "v41")
    commands = verified_commands(loop.folder, records(loop.log, "control"))
    assert all(before.epoch <= after.epoch for before, after in pairwise(commands))
    meaning = {command.epoch: (command.serve, command.decision) for command in commands}
    assert all(meaning[command.epoch] == (command.serve, command.decision) for command in commands)
    newest = commands[-1]
    assert (newest.serve, newest.decision) == ("v41", rollback["id"])
    return newest.epoch


def check_replicas(loop: Loop, epoch: Epoch) -> None:
    """Check by acks and answers that no replica ever went back, across all its processes."""
    acks = [ack_of(record) for record in records(loop.log, "acks")]
    answers = [json.loads(record.value or b"") for record in records(loop.log, "predictions")]
    converged = 0
    for name in REPLICAS:
        acked = [ack.epoch for ack in acks if ack.replica == name]
        assert acked == sorted(acked)
        # Who remembers an epoch does not receive it a second time.
        received = [ack.epoch for ack in acks if ack.replica == name and ack.stage == "received"]
        assert len(received) == len(set(received))
        obeyed = NO_EPOCH
        for at, answer in enumerate(answers):
            if answer["replica"] != name or answer.get("role", "live") != "live":
                continue
            before, obeyed = obeyed, tuple(answer.get("epoch") or NO_EPOCH)
            assert before <= obeyed, answer
            assert loop.owed[answer["id"].rpartition("-")[0]] <= obeyed, answer
            assert answer["version"] == ("v41" if obeyed == epoch else "v42"), answer
            if before < obeyed == epoch:
                converged = max(converged, at)
    afterwards = answers[converged:]
    assert {(answer["version"], tuple(answer["epoch"])) for answer in afterwards} == {("v41", epoch)}
    assert {version for owed, version in loop.first if owed == epoch} == {"v41"}
    # It was fired at afterwards too.
    assert len({answer["id"].rpartition("-")[0] for answer in afterwards}) > len(REPLICAS)


def check_audit(loop: Loop) -> None:
    """Check that ledger and decisions follow from the sources, as if there had been one monitor that nobody killed."""
    recording = loop.folder / "recording.ndjson"
    assert unship(loop.folder, "record", str(recording)).returncode == 0
    done = unship(loop.folder, "audit", str(recording))
    assert done.returncode == 0, done.stdout + done.stderr


def ack_of(record: Record) -> Ack:
    ack = decode_value("ack", record.value)
    assert isinstance(ack, Ack)
    return ack
