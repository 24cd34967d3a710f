"""Measure what an audit costs: of an embedded log that was written live, and of a recording that a replay wrote.

The embedded log is that of minutes of traffic: the monitor makes a round for every few events, so it holds as many
small ledger records as rounds; the clock is that of the events, so writing it takes less than those minutes. The
recording is a replay with its ledger and decisions. Both are audited as `unship audit` does it, without its start; the
floor, in the same run, is a bare typed parse of the same source lines.

Run: python benchmarks/audit.py [--quick] [--seconds 300] [--events 200000] [--rounds 3] [--json FILE] [--plot FILE.svg]
[--markdown]. Exit code 1 when an audit found a difference.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from heapq import heappop, heappush
from pathlib import Path

import msgspec
from figures import Bars, Measured, Table, clocked, in_turns, options_of, publish, ratio, tell
from synthetic import (
    CHANNELS,
    COUNTRIES,
    DELAY_MS,
    HOLDBACK_SHARE,
    LABELLED_SHARE,
    START_MS,
    WRONG_SHARE,
    Case,
    write_recording,
)

from streams.audit.ledger_audit import audit_topics
from streams.audit.replayed import audit_replayed, is_replayed
from streams.audit.result import AuditResult
from streams.embedded.monitor import EmbeddedMonitor
from streams.embedded.topics import EmbeddedTopics, open_log
from streams.recordings.lines import records_of
from streams.recordings.replay import Recorder, Replay
from unship.events import Feedback, Prediction
from unship.log.embedded.log import EmbeddedLog, Message

PREDICTIONS_PER_S = 120
ROUNDS_PER_S = 50
LIVE = Case(PREDICTIONS_PER_S, "1h", "1m", "1m")
REPLAYED = Case(2_000, "1d", "10m", "1m")
parse_prediction = msgspec.json.Decoder(Prediction).decode
parse_feedback = msgspec.json.Decoder(Feedback).decode
parse_either = msgspec.json.Decoder(Prediction | Feedback).decode


@dataclass(frozen=True, slots=True)
class Audited:
    """Hold one case: seconds of processor time of each round, of the audit and of the floor."""

    case: str
    events: int
    records: int
    seconds: list[float]
    floor_seconds: list[float]

    @property
    def micros(self) -> float:
        """Microseconds per event of the fastest round."""
        return 1e6 * min(self.seconds) / self.events


class Traffic:
    """Predictions at a steady rate and their feedback, as the messages of a log."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._made = 0
        self._due: list[tuple[int, str, int]] = []

    def announced(self) -> list[Message]:
        """Return the deployments of the live version and of its holdback."""
        reference = {"zero_one": {"mean": 0.1, "n": 50_000}, "brier": {"mean": 0.133, "n": 50_000}}
        live = {"model": "fraud", "version": "v42", "status": "live", "reference": reference}
        events = [{"model": "fraud", "version": "v41", "status": "holdback"}, live]
        return [Message(json.dumps(event).encode(), b"fraud") for event in events]

    def until(self, now: int) -> tuple[list[Message], list[Message]]:
        """Return the predictions and the feedback up to a time (ms) since the last call."""
        predictions = []
        while self._made < (now - START_MS) * PREDICTIONS_PER_S // 1_000:
            predictions.append(self._predicted(now))
        feedback = []
        while self._due and self._due[0][0] <= now:
            _, name, truth = heappop(self._due)
            event = {"id": name, "ts": now, "model": "fraud", "truth": truth, "source": "desk"}
            feedback.append(Message(json.dumps(event).encode(), name.encode()))
        return predictions, feedback

    def _predicted(self, now: int) -> Message:
        chance = self._random
        name, score = f"p-{self._made:09d}", chance.randrange(1, 1_000) / 1_000
        output, held = int(score >= 0.5), chance.random() < HOLDBACK_SHARE
        event = {
            "id": name,
            "ts": now,
            "model": "fraud",
            "version": "v41" if held else "v42",
            "role": "holdback" if held else "live",
            "output": output,
            "score": score,
            "slices": {"country": chance.choice(COUNTRIES), "channel": chance.choice(CHANNELS)},
            "replica": f"r-{self._made % 8}",
        }
        self._made += 1
        if chance.random() < LABELLED_SHARE:
            heappush(self._due, (now + chance.randrange(*DELAY_MS), name, output ^ (chance.random() < WRONG_SHARE)))
        return Message(json.dumps(event).encode(), name.encode())


def write_log(folder: Path, seconds: int, seed: int) -> None:
    """Let a monitor watch an embedded log for some seconds of its own time."""
    now = START_MS
    traffic = Traffic(seed)
    with EmbeddedLog(folder, now_ms=lambda: now) as log:
        monitor = EmbeddedMonitor(log, LIVE.config, lambda: now)
        log.append("deployments", traffic.announced())
        for number in range(seconds * ROUNDS_PER_S):
            now += 1_000 // ROUNDS_PER_S
            predictions, feedback = traffic.until(now)
            log.append_many({"predictions": predictions, "feedback": feedback})
            monitor.step()
            if number % 500 == 0:
                tell(f"writing an embedded log: {number // ROUNDS_PER_S} of {seconds} s", end="")
    tell("")


def audited_log(folder: Path, seconds: int, rounds: int, seed: int) -> Audited:
    """Write an embedded log and audit it."""
    write_log(folder, seconds, seed)
    with open_log(f"embedded:{folder}") as log:
        topics = EmbeddedTopics(log)
        values = {
            topic: [taken.value or b"" for taken in records_of(topics, topic, 0)]
            for topic in ("predictions", "feedback")
        }

        def bare() -> None:
            for value in values["predictions"]:
                parse_prediction(value)
            for value in values["feedback"]:
                parse_feedback(value)

        name = f"embedded log, {seconds / 60:g} minutes at {PREDICTIONS_PER_S} predictions/s"
        events = sum(map(len, values.values()))
        return measured_in_turns(name, events, rounds, lambda: audit_topics(topics, None), bare)


def audited_recording(folder: Path, events: int, rounds: int, seed: int) -> Audited:
    """Write the recording of a replay and audit it."""
    source, recording = folder / "source.ndjson", folder / "recording.ndjson"
    write_recording(source, events, REPLAYED.rate, seed)
    with source.open("rb") as lines, recording.open("wb") as out:
        for _ in Replay(REPLAYED.config, recorder=Recorder(out)).decisions(lines, stop_after=events):
            pass
    with source.open("rb") as lines:
        values = [line for line, _ in zip(lines, range(events), strict=False) if b'"deployment"' not in line[:30]]

    def bare() -> None:
        for value in values:
            parse_either(value)

    def audit() -> AuditResult:
        with recording.open("rb") as stream:
            assert is_replayed(stream)
            return audit_replayed(stream)

    name = f"recording of a replay, {REPLAYED.rate:,} events/s"
    return measured_in_turns(name, len(values), rounds, audit, bare)


def measured_in_turns(
    name: str, events: int, rounds: int, audit: Callable[[], AuditResult], bare: Callable[[], None]
) -> Audited:
    """Audit and parse in turns."""
    results: list[AuditResult] = []
    found = in_turns(rounds, audit=lambda: clocked(lambda: results.append(audit())), bare=lambda: clocked(bare))
    if results[-1].first_difference is not None:
        raise SystemExit(f"{name}: {results[-1].first_difference.sentence()}")
    return Audited(name, events, results[-1].ledger_records, found["audit"], found["bare"])


def measured(cases: list[Audited]) -> Measured:
    """Return everything that is published."""
    rows = [
        [
            case.case,
            f"{case.events:,}",
            f"{case.records:,}",
            f"**{min(case.seconds):.2f}**",
            f"{case.micros:.1f}",
            f"{1e6 * min(case.seconds) / case.records:.0f}",
            f"{ratio(case.seconds, case.floor_seconds):.1f}",
        ]
        for case in cases
    ]
    columns = ["audit of", "events", "ledger records", "s", "µs per event", "µs per record", "times the bare parse"]
    plot = Bars(
        "Audit: processor time", "µs per event", [case.case for case in cases], {"audit": [c.micros for c in cases]}
    )
    return Measured("audit", {"cases": [asdict(case) for case in cases]}, [Table(columns, rows)], plot)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and publish."""
    parser = options_of("Measure what an audit costs.")
    parser.add_argument("--seconds", type=int, help="length of the embedded log (default 300; --quick 30)")
    parser.add_argument("--events", type=int, help="events of the recording (default 200000; --quick 50000)")
    parser.add_argument("--rounds", type=int, help="rounds of audit and floor (default 3; --quick 1)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    seconds = options.seconds or (30 if options.quick else 300)
    events = options.events or (50_000 if options.quick else 200_000)
    rounds = options.rounds or (1 if options.quick else 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [
            audited_log(folder / "log", seconds, rounds, options.seed),
            audited_recording(folder, events, rounds, options.seed),
        ]
    publish(measured(cases), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
