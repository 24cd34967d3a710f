"""From source lines to ledger records: the step before the fold.

Lines are joined as they come; what was joined is *cut* into ledger records at positions that depend on the lines alone:
after 4,096 accepted lines, where the source clock enters a new second, before a deployment or an operator's act, and
before a tick. How many lines were read at once, where a replay was stopped, or how much noise stands between the
accepted lines changes nothing. Only lines that put something into the ledger count as accepted, so noise does not move
a cut either. Nor do acks, which leave their own records: at the next cut, or at the next second if nothing else waits.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from streams.config.resolved import Config
from streams.join.clock import SourceClock
from streams.join.partition import Ingest, SavedIngest
from streams.join.tally import NOWHERE
from streams.ledger.records import Deployed, Operated, Record, ReplicaFacts, Tick
from unship.codec import Decoded, OtherLine, decode_line
from unship.events import Ack, At, Deployment, Feedback, OperatorAct, Prediction
from unship.rejections import RejectCode, Rejection
from unship.topics import SOURCES

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
    controls: list[str]
    ingest: SavedIngest
    facts_at: int


class Sources:
    """Joins lines and yields ledger records.

    The driver steps the fold with each record before it asks for the next one, and keeps `timer_due` at the earliest
    instant at which the fold waits for time to pass.

    In a recording a prediction's place is its line. A live log has places of its own; what is joined is then handed
    over as batches that say what they cover.
    """

    def __init__(self, config: Config, *, live: bool = False) -> None:
        self.config = config
        self.live = live
        self.ingest = Ingest(config, placed=live)
        self.window = self.ingest.window
        self.counts = self.ingest.counts
        self.timer_due = NEVER
        self.clock = SourceClock()
        self.replicas = self.ingest.replicas
        self.line = 0
        self._cut_from = 0
        self._accepted = 0
        self._accepted_at = -1
        self._facts_at = -1
        self._pending_due = NEVER
        self._digest_prefix = b""
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._cohorts: set[tuple[int, int]] = set()
        self._controls: dict[str, None] = {}
        self._maturity: list[tuple[int, int]] = []

    def feed(self, lines: Iterable[bytes]) -> Iterator[Record]:
        """Take source lines in arrival order and yield the ledger records they complete."""
        return self.take((decode_line(line), line, None) for line in lines)

    def take(self, decoded: Iterable[tuple[Decoded, bytes, At | None]]) -> Iterator[Record]:
        """Take decoded events, each with the bytes it was read from, and yield the ledger records they complete.

        The third is the place in a live log: (topic, partition, offset, append time).
        """
        for event, raw, place in decoded:
            kind = type(event)
            if kind is OtherLine:
                continue
            if isinstance(event, Rejection):
                if place is not None:
                    self._placed(place, raw)
                    self.clock.read_appended(place[0], place[1], place[3], None)
                self.counts[event.code] += 1
                self._keep(raw)
                continue
            now = self._read_clock(event, place)
            if now is None:
                if place is not None:
                    self._placed(place, raw)
                self.counts[_why_refused(event)] += 1
                self._keep(raw)
                continue
            if now >= self._pending_due or now >= self.timer_due:
                yield from self._tick_until(now)
            if self._is_cut_due(now):
                yield from self.cut()
            if place is not None:
                # Only now: a batch that is cut before this record does not cover it.
                self._placed(place, raw)
            if kind is Prediction:
                self._prediction(event, now, self.line if place is None else place[2])  # type: ignore[arg-type]
                self._keep(raw)
            elif kind is Feedback:
                position = self.line if place is None else place[2]
                if self.ingest.feedback(event, position, self.clock.at):  # type: ignore[arg-type]
                    self._accept(now)
                self._keep(raw)
            else:
                yield from self._control(event, now, raw)

    def _is_cut_due(self, now: int) -> bool:
        if self._accepted:
            return now // CUT_MS != self._accepted_at // CUT_MS or self._accepted >= CUT_LINES
        return self.replicas.waiting and now // CUT_MS != self._facts_at // CUT_MS

    def _placed(self, place: At, raw: bytes) -> None:
        self.counts.place = NOWHERE
        if place[0] in SOURCES:
            self.ingest.read(SOURCES.index(place[0]), place[2], raw)

    def advance(self, ts: int) -> Iterator[Record]:
        """Let the source clock go to `ts` without a line, as a caught-up reader does."""
        if ts > self.clock.now:
            yield from self._tick_until(ts)
            yield from self.cut()
            self.clock.now = ts
            yield Tick(ts)

    def _read_clock(self, event: Any, place: At | None) -> int | None:
        at, clock = event.at if place is None else place, self.clock
        return clock.read(event.ts) if at is None else clock.read_appended(at[0], at[1], at[3], event.ts)

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

    def _prediction(self, event: Prediction, now: int, position: int) -> None:
        at = self.clock.at
        held = self.ingest.prediction(event, position, at)
        if held is None:
            return
        code = held.series
        while code >= len(self._maturity):
            model = self.config.of(self.window.series[len(self._maturity)].model)
            self._maturity.append((model.mature_after_ms, model.cohort_ms if model.mature_after_ms else 0))
        maturity, width = self._maturity[code]
        if width and (cohort := (code, at // width)) not in self._cohorts:
            self._cohorts.add(cohort)
            self._pending_due = min(self._pending_due, at - at % width + width + maturity)
        self._accept(now)

    def _accept(self, now: int) -> None:
        self._accepted += 1
        self._accepted_at = now

    def _control(self, event: Any, now: int, line: bytes) -> Iterator[Record]:
        if isinstance(event, Ack):
            known = self.window.admit(event.model)
            place = ("", 0, self.line) if event.at is None else event.at[:3]
            if known and self.replicas.acknowledged(event, place, self.clock.at, self.counts):
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
        """Yield what was joined, and what changed at replicas, since the last cut.

        Of a recording, that is one record of a kind for each model that has anything new.
        """
        if not self._accepted and not self.replicas.waiting:
            return
        digest, lines = self._close_range()
        self._cohorts.clear()
        # Not the time of the line that makes the cut: what falls due between the two comes first.
        accepted, now = self._accepted, self._accepted_at if self._accepted else self._facts_at
        self._accepted, self._pending_due = 0, NEVER
        self.window.evict(self.clock.now, self.clock.now)
        for model, changes in self.replicas.take().items():
            yield ReplicaFacts(now, lines, digest, model, changes)
        if self.live and accepted:
            yield self.ingest.batch(now)
        elif accepted:
            yield from self.ingest.records(now, lines, digest)

    def rest(self) -> Iterator[Record]:
        """Yield what is left at the end of a round of reading a live log: also what only counts, or only was read."""
        yield from self.cut()
        if self.live and (self.ingest.base != self.ingest.end or self.ingest.waiting):
            yield self.ingest.batch(self.clock.now)

    def save(self) -> SavedSources:
        """Return everything that the next line needs; call between two lines."""
        return SavedSources(
            self.clock,
            self.line,
            self._cut_from,
            self._accepted,
            self._accepted_at,
            self._pending_due,
            self._digest_prefix,
            self._raw,
            list(self._controls),
            self.ingest.save(),
            self._facts_at,
        )

    def load(self, saved: SavedSources) -> None:
        """Take over what `save` returned; `self` must be new and have the same configuration."""
        self.ingest.load(saved.ingest)
        self.clock, self.line, self._cut_from = saved.clock, saved.line, saved.cut_from
        self._accepted, self._accepted_at, self._pending_due = saved.accepted, saved.accepted_at, saved.pending_due
        self._digest_prefix, self._raw = saved.digest_prefix, saved.raw
        self._raw_bytes = sum(map(len, saved.raw))
        for held in self.ingest.seen:
            model = self.config.of(self.window.series[held.series].model)
            if model.mature_after_ms:
                self._cohorts.add((held.series, held.at // model.cohort_ms))
        self._controls = dict.fromkeys(saved.controls)
        self._facts_at = saved.facts_at


def _why_refused(event: Any) -> RejectCode:
    """Return the code of an event whose time was refused."""
    return RejectCode.BAD_TIME if event.ts is None else RejectCode.FUTURE_TS
