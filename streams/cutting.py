"""From source lines to ledger records: the step before the fold.

Lines are joined as they come; what was joined is *cut* into ledger records at positions that depend on the lines alone:
after 4,096 accepted lines, where the source clock enters a new second, before a deployment or an operator's act, and
before a tick. How many lines were read at once, where a replay was stopped, or how much noise stands between the
accepted lines changes nothing. Only lines that put something into the ledger count as accepted, so noise does not move
a cut either. Nor do acks, which leave their own records: at the next cut, or at the next second if nothing else waits.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from streams.clock import SourceClock
from streams.columns import RecordBuilder
from streams.config import Config, ModelConfig
from streams.join import JoinWindow, Outcome, Pair, SavedWindow, WindowRule
from streams.records import Deployed, Operated, Record, ReplicaFacts, Tick
from streams.replica_watch import ReplicaWatch, SavedWatch
from unship.codec import Decoded, OtherLine, decode_line
from unship.events import Ack, Deployment, Feedback, OperatorAct, Prediction
from unship.rejections import RejectCode, Rejection

CUT_LINES = 4_096
CUT_MS = 1_000
#: More raw bytes than these are folded into the digest before the next cut.
RAW_BYTES_MAX = 16 * 1_048_576
#: Deployments and acts are repeated by retries and by every replica; the newest are remembered to drop repeats.
CONTROLS_REMEMBERED = 10_000
NEVER = 2**62


class SavedSources(msgspec.Struct):
    """`Sources` at rest, between two lines."""

    clock: SourceClock
    line: int
    cut_from: int
    accepted: int
    accepted_at: int
    pending_due: int
    digest_prefix: bytes
    raw: list[bytes]
    predictions: list[tuple[int, int, int]]
    outcomes: list[tuple[int, int, str]]
    pairs: list[tuple[int, int, int]]
    controls: list[str]
    window: SavedWindow
    replicas: SavedWatch
    facts_at: int


class Sources:
    """Joins lines and yields ledger records.

    The driver steps the fold with each record before it asks for the next one, and keeps `timer_due` at the earliest
    instant at which the fold waits for time to pass.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        rules = {name: window_rule(model) for name, model in config.models.items()}
        self.window = JoinWindow(rules, window_rule(config.defaults))
        self.counts: Counter[str] = self.window.counts
        self.timer_due = NEVER
        self.clock = SourceClock()
        self.replicas = ReplicaWatch()
        self.line = 0
        self._cut_from = 0
        self._accepted = 0
        self._accepted_at = -1
        self._facts_at = -1
        self._pending_due = NEVER
        self._digest_prefix = b""
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._predictions: Counter[tuple[int, int]] = Counter()
        self._controls: dict[str, None] = {}
        self._maturity: list[tuple[int, int]] = []

    def feed(self, lines: Iterable[bytes]) -> Iterator[Record]:
        """Take source lines in arrival order and yield the ledger records they complete."""
        return self.take((decode_line(line), line) for line in lines)

    def take(self, decoded: Iterable[tuple[Decoded, bytes]]) -> Iterator[Record]:
        """Take decoded events, each with the bytes it was read from, and yield the ledger records they complete."""
        for event, raw in decoded:
            kind = type(event)
            if kind is OtherLine:
                continue
            if isinstance(event, Rejection):
                self.counts[event.code] += 1
                self._keep(raw)
                continue
            now = self._read_clock(event)
            if now is None:
                self._keep(raw)
                continue
            if now >= self._pending_due or now >= self.timer_due:
                yield from self._tick_until(now)
            if self._is_cut_due(now):
                yield from self.cut()
            if kind is Prediction:
                self._prediction(event, now)  # type: ignore[arg-type]
                self._keep(raw)
            elif kind is Feedback:
                self._feedback(event, now)  # type: ignore[arg-type]
                self._keep(raw)
            else:
                yield from self._control(event, now, raw)

    def _is_cut_due(self, now: int) -> bool:
        if self._accepted:
            return now // CUT_MS != self._accepted_at // CUT_MS or self._accepted >= CUT_LINES
        return self.replicas.waiting and now // CUT_MS != self._facts_at // CUT_MS

    def advance(self, ts: int) -> Iterator[Record]:
        """Let the source clock go to `ts` without a line, as a caught-up reader does."""
        if ts > self.clock.now:
            yield from self._tick_until(ts)
            yield from self.cut()
            self.clock.now = ts
            yield Tick(ts)

    def _read_clock(self, event: Any) -> int | None:
        at, clock = event.at, self.clock
        now = clock.read(event.ts) if at is None else clock.read_appended(at[0], at[1], at[3], event.ts)
        if now is None:
            self.counts[RejectCode.BAD_TIME if event.ts is None else RejectCode.FUTURE_TS] += 1
        return now

    def _keep(self, line: bytes) -> None:
        self._raw.append(line)
        self._raw_bytes += len(line)
        self.line += 1
        if len(self._raw) >= 2 * CUT_LINES or self._raw_bytes >= RAW_BYTES_MAX:
            # A long stretch without an accepted line must not be held in memory.
            self._digest_prefix = self._digest()
            self._raw.clear()
            self._raw_bytes = 0
            if not self._accepted:
                # Feedback without predictions puts nothing into the ledger; it must leave the window all the same.
                self.window.evict(self.clock.now, self.clock.now)

    def _digest(self) -> bytes:
        return hashlib.sha256(self._digest_prefix + b"".join(self._raw)).digest()

    def _prediction(self, event: Prediction, now: int) -> None:
        at = self.clock.at
        held = self.window.add_prediction(event, self.line, at)
        if held is None:
            return
        code = held.series
        while code >= len(self._maturity):
            model = self.config.of(self.window.series[len(self._maturity)].model)
            self._maturity.append((model.mature_after_ms, model.cohort_ms if model.mature_after_ms else 0))
        maturity, width = self._maturity[code]
        cohort = code, at // width if width else 0
        self._predictions[cohort] += 1
        if width and self._predictions[cohort] == 1:
            self._pending_due = min(self._pending_due, at - at % width + width + maturity)
        if event.replica is not None:
            self.replicas.answered(event, self.line, at, self.counts)
        self._accept(now)

    def _feedback(self, event: Feedback, now: int) -> None:
        if event.truth is None and not self.window.engagement:
            # Engagement alone says nothing about right or wrong to the losses of any model.
            self.counts[RejectCode.UNUSABLE_TRUTH] += 1
        elif self.window.add_feedback(event, self.line, self.clock.at):
            self._accept(now)

    def _accept(self, now: int) -> None:
        self._accepted += 1
        self._accepted_at = now

    def _control(self, event: Any, now: int, line: bytes) -> Iterator[Record]:
        if isinstance(event, Ack):
            known = self.window.admit(event.model)
            if known and self.replicas.acknowledged(event, self.line, self.clock.at, self.counts):
                self._facts_at = now
            self._keep(line)
            return
        if self._known(event, now, line) or not self.window.admit(event.model):
            self._keep(line)
            return
        yield from self.cut()
        self._keep(line)
        digest, lines = self._close_range()
        if isinstance(event, Deployment):
            yield Deployed(now, lines, digest, event)
        elif isinstance(event, OperatorAct):
            yield Operated(now, lines, digest, event)

    def _known(self, event: Deployment | OperatorAct, now: int, line: bytes) -> bool:
        """Whether a deployment or an act was seen before; a repeat is counted."""
        if isinstance(event, Deployment):
            # Without a time of its own a deployment is as old as its line, so going back to a version is no repeat.
            ts = now if event.ts is None else event.ts
            said = repr((event.model, event.version, event.status, ts, event.previous)).encode()
            code = RejectCode.DUPLICATE_DEPLOYMENT
        else:
            said = line if event.at is None else repr(event.at[:3]).encode()
            code = RejectCode.DUPLICATE_ACT
        name = hashlib.sha256(said).hexdigest()
        if name in self._controls:
            self.counts[code] += 1
            return True
        self._controls[name] = None
        if len(self._controls) > CONTROLS_REMEMBERED:
            del self._controls[next(iter(self._controls))]
        return False

    def _tick_until(self, now: int) -> Iterator[Record]:
        while (due := min(self.timer_due, self._pending_due)) <= now:
            if self._accepted or self.replicas.waiting:
                # The fold learns of the pending cohorts first; what is due then is asked again.
                yield from self.cut()
                continue
            yield Tick(due)
            assert self.timer_due > due, (self.timer_due, due)

    def _close_range(self) -> tuple[str, tuple[int, int]]:
        digest, lines = self._digest().hex(), (self._cut_from, self.line - 1)
        self._raw.clear()
        self._raw_bytes = 0
        self._digest_prefix = b""
        self._cut_from = self.line
        return digest, lines

    def cut(self) -> Iterator[Record]:
        """Yield what was joined, and what changed at replicas, since the last cut: one record of a kind for each model
        that has anything new."""
        if not self._accepted and not self.replicas.waiting:
            return
        window, series = self.window, self.window.series
        outcomes: dict[str, list[Outcome]] = {}
        for outcome in window.outcomes:
            outcomes.setdefault(series[outcome.held.series].model, []).append(outcome)
        pairs: dict[str, list[Pair]] = {}
        for pair in window.pairs:
            pairs.setdefault(series[pair.live.series].model, []).append(pair)
        predictions: dict[str, list[tuple[int, int, int]]] = {}
        for (code, cohort), count in self._predictions.items():
            predictions.setdefault(series[code].model, []).append((code, cohort, count))
        digest, lines = self._close_range()
        window.outcomes, window.pairs = [], []
        # Not the time of the line that makes the cut: what falls due between the two comes first.
        now = self._accepted_at if self._accepted else self._facts_at
        self._predictions.clear()
        self._accepted, self._pending_due = 0, NEVER
        window.evict(self.clock.now, self.clock.now)
        for model, changes in self.replicas.take().items():
            yield ReplicaFacts(now, lines, digest, model, changes)
        for model in sorted(outcomes.keys() | predictions.keys() | pairs.keys()):
            columns = RecordBuilder(self.config.of(model), series, self.counts)
            yield columns.record(
                model, now, lines, digest, outcomes.get(model, []), pairs.get(model, []), predictions.get(model, [])
            )

    def save(self) -> SavedSources:
        """Return everything that the next line needs; call between two lines."""
        window = self.window
        outcomes, pairs = window.outcomes, window.pairs
        window.outcomes, window.pairs = [], []
        saved = SavedSources(
            self.clock,
            self.line,
            self._cut_from,
            self._accepted,
            self._accepted_at,
            self._pending_due,
            self._digest_prefix,
            self._raw,
            [(code, cohort, count) for (code, cohort), count in self._predictions.items()],
            [(outcome.held.position, outcome.labelled_at, outcome.source) for outcome in outcomes],
            [(pair.live.position, pair.shadow.position, pair.labelled_at) for pair in pairs],
            list(self._controls),
            window.save(),
            self.replicas.save(),
            self._facts_at,
        )
        window.outcomes, window.pairs = outcomes, pairs
        return saved

    def load(self, saved: SavedSources) -> None:
        """Take over what `save` returned; `self` must be new and have the same configuration."""
        self.window.load(saved.window)
        self.counts = self.window.counts
        self.clock, self.line, self._cut_from = saved.clock, saved.line, saved.cut_from
        self._accepted, self._accepted_at, self._pending_due = saved.accepted, saved.accepted_at, saved.pending_due
        self._digest_prefix, self._raw = saved.digest_prefix, saved.raw
        self._raw_bytes = sum(map(len, saved.raw))
        self._predictions = Counter({(code, cohort): count for code, cohort, count in saved.predictions})
        self._controls = dict.fromkeys(saved.controls)
        self.replicas.load(saved.replicas)
        self._facts_at = saved.facts_at
        held = {entry.position: entry for queue in self.window.leaving.values() for entry in queue}
        self.window.outcomes = [Outcome(held[position], at, source) for position, at, source in saved.outcomes]
        self.window.pairs = [Pair(held[live], held[shadow], at) for live, shadow, at in saved.pairs]


def window_rule(model: ModelConfig) -> WindowRule:
    """Return how long the join keeps what belongs to a model, and which feedback it takes."""
    of_engagement = [spec.of_engagement for spec in model.losses]
    return WindowRule(
        model.horizon_ms, model.early_ms, tuple(model.slices_by), not all(of_engagement), any(of_engagement)
    )
