"""Play the demo: rounds of requests and truths, on a clock that they advance.

The log's append times, by which labels mature and cohorts close, are this clock's; so the verdict depends on what is
sent and not on the speed of this machine. A round is sent only when the previous one is in the log, and never far ahead
of the monitor; a release waits until all replicas have converged, as a release should.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from actions.checkpoints import CHECKPOINT_KEY
from actions.journal import Decision, decode_decision
from actions.reasons import Action
from console.census.recording import first_deployment, release_deployments
from console.census.scenarios import MODEL
from console.census.traffic import MATURE_AFTER_MS, SOURCES, TS_START_MS, Requests, Traffic
from console.demo.keep_recording import keep
from console.demo.messages import Answers, DemoClock, Reported, Round, Time, Truths
from console.demo.workers import DemoError, Stage
from streams.config.units import MINUTE_MS
from streams.fold.status import Status
from streams.fold.status_records import merged
from streams.ledger.entries import read_entry
from streams.ledger.records import Tick
from unship.codec import decode_value
from unship.commands import Command, decode_command
from unship.events import Ack, Deployment, Prediction
from unship.keys import DEPLOYER_FILE, TRUST_FILE, load_private_key, load_trust, new_nonce
from unship.log.embedded.log import EmbeddedLog, Message
from unship.signing import sign_event

ROUND_MS = 2 * MINUTE_MS
"""Length of a round on this clock: about 240 requests, one every half second."""

AHEAD_ROUNDS = 3
"""Largest lag of the monitor in rounds: far less than the maturity of a cohort."""

PACE = 1_800.0
"""Seconds of the demo's day per second, at --speed 1."""

AFTER_MS = 20 * MINUTE_MS
"""How long requests continue after a rollback, to show the losses of the version that replaced it."""

PATIENCE_S = 120.0
WAIT_S_MAX = 600.0
"""Longest waits for the next step: without any record in the log, and in total."""

LOOK_S = 0.05
TAIL = 500
ACTS = (Action.ROLLBACK, Action.PROPOSE)


@dataclass(slots=True)
class Progress:
    """Hold what has happened so far; read by the views."""

    now: int
    answered: int = 0
    labelled: int = 0
    replicas: dict[str, tuple[str, tuple[int, int, int] | None]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    status: Status | None = None
    taken_back: int | None = None
    journal_end: int = 0


class View(Protocol):
    """Show how far the demo has come."""

    def show(self, seen: Progress) -> None:
        """Show the progress."""

    def note(self, text: str) -> None:
        """Add a line of its own."""


class LabelQueue:
    """Hold the labels of requests until they are due and their request was answered."""

    def __init__(self, requests: Requests) -> None:
        """Order the labels by the time at which they become known."""
        labelled = np.flatnonzero(requests.labelled)
        self._order = labelled[np.argsort(requests.ts_label_ms[labelled], kind="stable")]
        self._ts_ms = requests.ts_label_ms[self._order]
        self._reached, self._waiting = 0, self._order[:0]

    def due(self, now: int, answered: int) -> NDArray[np.int64]:
        """Take out the requests whose labels are due at `now`, of the first `answered` requests only."""
        first = self._reached
        self._reached = int(np.searchsorted(self._ts_ms, now, side="right"))
        due = np.concatenate([self._waiting, self._order[first : self._reached]])
        known = due < answered
        self._waiting = due[~known]
        return due[known]


class Course:
    """Play one scenario with processes that run."""

    def __init__(self, stage: Stage, requests: Requests, speed: float, view: View) -> None:
        """Describe the course.

        Args:
            stage: The processes.
            requests: The requests of the scenario.
            speed: Speed-up factor over `PACE`.
            view: Shows each round, and what happens in between.
        """
        self.stage, self.requests = stage, requests
        self._speed, self._view = speed, view
        count = len(requests.ts_ms)
        self.traffic = Traffic(requests, np.zeros(count, np.bool_), np.zeros(count), np.zeros(count, np.int64))
        self.seen = Progress(TS_START_MS)
        self._clock = DemoClock(TS_START_MS)
        self._log = EmbeddedLog(stage.log, now_ms=self._clock)
        self._ends: list[dict[str, int]] = []
        self._labels = LabelQueue(requests)
        self._pause = threading.Event()

    def play(self) -> Progress:
        """Play the scenario to its end, and wait until the monitor has read all of it."""
        requests, began = self.requests, time.monotonic()
        released = int(np.argmax(requests.released))
        ts_released, ts_last = int(requests.ts_ms[released]), int(requests.ts_ms[-1])
        self._deploy([first_deployment(TS_START_MS)], TS_START_MS)
        ends = [*range(TS_START_MS + ROUND_MS, ts_last + MATURE_AFTER_MS + 4 * ROUND_MS, ROUND_MS), ts_released - 1]
        for now in sorted(ends):
            due = began + (now - TS_START_MS) / 1_000 / PACE / self._speed
            if (early := due - time.monotonic()) > 0:
                self._pause.wait(early)
            self._round(now)
            if now == ts_released - 1:
                self._deploy(release_deployments(ts_released, holdback=False), ts_released)
            if self._over(now):
                break
        self._until(self._caught_up, "the monitor did not read everything")
        self._look()
        return self.seen

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def command(self) -> Command | None:
        """Return the newest command."""
        record = self._log.latest("control").get(MODEL.encode())
        command = None if record is None else decode_command(record.value)
        return command if isinstance(command, Command) else None

    def converged(self) -> bool:
        """Return whether every replica acknowledged that it serves by the newest command."""
        command = self.command()
        if command is None:
            return False
        wanted = command.serve, command.epoch
        acks = [decode_value("ack", record.value) for record in self._log.latest("acks").values()]
        obeyed = {
            ack.replica
            for ack in acks
            if isinstance(ack, Ack) and ack.stage == "serving" and (ack.serving, ack.epoch) == wanted
        }
        return all(worker.name in obeyed for worker in self.stage.replicas)

    def answering(self) -> dict[str, tuple[str, list[int] | None]]:
        """Return the version and epoch of each replica's newest answer as the live version, from the log itself."""
        end = self._log.end("predictions")
        found: dict[str, tuple[str, list[int] | None]] = {}
        while end > 0 and len(found) < len(self.stage.replicas):
            begin = max(0, end - TAIL)
            for record in reversed(self._log.read("predictions", begin, limit=end - begin)):
                event = decode_value("prediction", record.value)
                if isinstance(event, Prediction) and event.role == "live" and event.replica is not None:
                    found.setdefault(event.replica, (event.version, None if event.epoch is None else list(event.epoch)))
            end = begin
        return dict(sorted(found.items()))

    def events(self) -> int:
        """Return how many events were sent to the monitor."""
        ends = self._log.ends()
        return sum(ends[topic] for topic in ("predictions", "feedback", "deployments"))

    def keep(self, path: Path) -> None:
        """Write the recording."""
        keep(self._log, path)

    def _round(self, now: int) -> None:
        """Send the requests and truths up to a time, and collect the answers."""
        self._until(self._near, "the monitor makes no progress")
        first = self.seen.answered
        last = int(np.searchsorted(self.requests.ts_ms, now, side="right"))
        shares = [np.arange(first + at, last, len(self.stage.replicas)) for at in range(len(self.stage.replicas))]
        for worker, share in zip(self.stage.replicas, shares, strict=True):
            worker.send(self._asked(now, share))
        # Only truths about answers of earlier rounds: a truth may depend on the answer.
        self.stage.labels.send(self._known(now))
        for worker, share in zip(self.stage.replicas, shares, strict=True):
            self._take(worker.name, share, worker.receive(Answers))
        self.stage.labels.receive(Reported)
        self.seen.answered, self.seen.now = last, now
        self._clock.set(now)
        self.stage.monitor.send(Time(now))
        self._ends.append(self._log.ends())
        self._look()
        self._view.show(self.seen)

    def _asked(self, now: int, share: Any) -> Round:
        requests = self.requests
        return Round(
            now,
            requests.rows.row[share].tolist(),
            requests.ts_ms[share].tolist(),
            requests.features[:, share].T.tolist(),
        )

    def _known(self, now: int) -> Truths:
        """Return the truths that became known, about what was answered."""
        requests = self.requests
        due = self._labels.due(now, self.seen.answered)
        self.seen.labelled += due.size
        names = [name for name, _, _, _ in SOURCES]
        return Truths(
            now,
            [f"ma-{row}" for row in requests.rows.row[due].tolist()],
            self.traffic.reported()[due].tolist(),
            [names[source] for source in requests.source[due].tolist()],
            requests.ts_label_ms[due].tolist(),
        )

    def _take(self, name: str, share: Any, answers: Answers) -> None:
        by_v42 = np.array(answers.by) == "v42"
        self.traffic.by_v42[share], self.traffic.score[share] = by_v42, answers.score
        self.traffic.output[share], self.requests.held[share] = answers.output, answers.held
        seen = self.seen
        before = seen.replicas.get(name)
        seen.replicas[name] = answers.version, answers.epoch
        seen.counts[name] = seen.counts.get(name, 0) + share.size
        if before is not None and before[0] != answers.version:
            self._view.note(f"{name} now serves {answers.version}")
            if before[0] == "v42" and share.size and (seen.taken_back is None or share[0] < seen.taken_back):
                seen.taken_back = int(share[0])

    def _deploy(self, events: list[dict[str, Any]], ts: int) -> None:
        """Emit signed deployments as a release pipeline does, and wait until the replicas have converged."""
        before = self.command()
        self._clock.set(ts)
        keys = self.stage.keys
        key, audience = load_private_key(keys / DEPLOYER_FILE), load_trust(keys / TRUST_FILE).audience
        for event in events:
            announced = msgspec.convert(event, Deployment)
            value, headers = sign_event(announced, key, audience, ts, new_nonce())
            self._log.append("deployments", [Message(value, MODEL.encode(), headers)])
        self.stage.monitor.send(Time(ts))
        serve = events[0]["version"]

        def obeyed() -> bool:
            command = self.command()
            new = command is not None and command.serve == serve and (before is None or command.epoch > before.epoch)
            return new and self.converged()

        self._until(obeyed, f"the replicas do not serve {serve}")
        self._view.note(f"{serve} was released; all {len(self.stage.replicas)} replicas serve it")

    def _look(self) -> None:
        """Read the decisions and the status that the monitor has written."""
        seen, log = self.seen, self._log
        for record in log.read("decisions", seen.journal_end):
            seen.journal_end = record.offset + 1
            if record.key == CHECKPOINT_KEY:
                continue
            decision = decode_decision(record.value or b"")
            seen.decisions.append(decision)
            target = f" to {decision.to}" if decision.to else ""
            self._view.note(f"{decision.reason}: {decision.action}{target}")
        seen.status = merged({key: record.value for key, record in log.latest("snapshots").items()})

    def _positions(self) -> dict[str, int]:
        """Return how far the monitor has read the topics."""
        end = self._log.end("ledger")
        while end > 0:
            end -= 1
            record = read_entry(self._log.read("ledger", end, limit=1)[0].value or b"").record
            if isinstance(record, Tick) and record.positions:
                return record.positions
        return {}

    def _has_read(self, ends: dict[str, int]) -> bool:
        positions = self._positions()
        return all(positions.get(topic, 0) >= ends[topic] for topic in ("predictions", "feedback"))

    def _near(self) -> bool:
        return len(self._ends) < AHEAD_ROUNDS or self._has_read(self._ends[-AHEAD_ROUNDS])

    def _caught_up(self) -> bool:
        return self._has_read(self._log.ends()) and self.converged()

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        """Wait for a condition while records arrive in the log."""
        began = moved = time.monotonic()
        before = self._log.ends()
        while not condition():
            for worker in (self.stage.monitor, self.stage.labels, *self.stage.replicas):
                worker.check()
            self._log.wait({topic: before[topic] for topic in ("ledger", "acks", "control")}, LOOK_S)
            ends, now = self._log.ends(), time.monotonic()
            if ends != before:
                moved, before = now, ends
            if now - moved > PATIENCE_S or now - began > WAIT_S_MAX:
                raise DemoError(
                    f"{complaint} after {now - began:.0f} s, the last {now - moved:.0f} s without a record in the log; "
                    "check the load of this machine, and run the demo again"
                )

    def _over(self, now: int) -> bool:
        """Return whether a rollback happened or was proposed at least `AFTER_MS` ago."""
        acted = next((decision.ts for decision in self.seen.decisions if decision.action in ACTS), None)
        return acted is not None and now >= acted + AFTER_MS
