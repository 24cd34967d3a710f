"""Spoil a clean recording the way real topics are spoiled, without changing what it says.

The original lines keep their order and their bytes. Between them come repeated lines, contradictions that come too
late to count, labels of predictions nobody made, and lines that are no events at all. Nothing inserted carries a time
ahead of the line before it, except a lone leap of more than a day, which a reader must refuse; so the clock of the
recording, and with it every decision, stays as it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson

from tests.worlds.generator import DAY_MS, DEPLOYMENT, FEEDBACK, HOUR_MS, PREDICTION, Ints, Recording

# Copies return within this time, while a reader that keeps predictions for a day still knows the original.
LONGEST_RETURN_MS = 18 * HOUR_MS
# A label without a prediction is known to be one only after the reader has waited for the prediction.
UNKNOWN_REST_MS = HOUR_MS
DEPLOYMENT_COPIES = 4

# What is added for each hundred original lines, by kind; malformed lines are spread evenly over `MALFORMED`.
SHARES: dict[str, float] = {
    "prediction_again": 3.0,
    "prediction_later": 3.0,
    "prediction_conflicting": 2.0,
    "feedback_again": 3.0,
    "feedback_later": 3.0,
    "feedback_conflicting": 2.0,
    "feedback_unknown": 1.0,
    "malformed": 2.5,
    "leap": 0.5,
}

Spoiler = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Hold the noisy lines, and how many were added of each kind; `position[i]` is where original line i now stands."""

    lines: list[bytes]
    added: dict[str, int]
    position: Ints

    @property
    def bad(self) -> int:
        """Return how many lines were added, each of which a reader has to count under some reason."""
        return sum(count for kind, count in self.added.items() if ":" not in kind)

    def to_bytes(self) -> bytes:
        """Return the recording as NDJSON; some lines are not JSON, and some not even text."""
        return b"\n".join(self.lines) + b"\n"


def _line(**fields: object) -> bytes:
    return orjson.dumps(fields)


def _prediction(ts: int, n: int, /, **changed: object) -> bytes:
    """Write a prediction that would be right but for what is changed; a field of None is left out."""
    fields = {
        "type": "prediction",
        "id": f"bad-{n}",
        "ts": ts,
        "model": "fraud",
        "version": "v42",
        "output": 1,
        "score": 0.5,
    }
    return _line(**{key: value for key, value in (fields | changed).items() if value is not None})


def _feedback(ts: int, n: int, /, **changed: object) -> bytes:
    fields = {"type": "feedback", "id": f"bad-{n}", "ts": ts, "truth": 1}
    return _line(**{key: value for key, value in (fields | changed).items() if value is not None})


def _raw(text: str) -> Spoiler:
    """Return lines from a pattern in which @TS and @N stand for the time and a number."""
    return lambda ts, n: text.replace("@TS", str(ts)).replace("@N", str(n)).encode()


_BODY = '"type":"prediction","id":"bad-@N","ts":@TS,"model":"fraud","version":"v42"'

MALFORMED: dict[str, Spoiler] = {
    "truncated": lambda ts, n: _prediction(ts, n)[: 12 + n % 60],
    "not_text": lambda ts, n: _prediction(ts, n, id="bad-#").replace(b"#", b"\xff\xfe\x80"),
    "overlong_utf8": lambda ts, n: _prediction(ts, n, id="bad-#").replace(b"#", b"\xc0\xaf"),
    "lone_surrogate": _raw(
        '{"type":"prediction","id":"bad-\\ud800","ts":@TS,"model":"fraud","version":"v42","output":1}'
    ),
    "nan_score": _raw("{" + _BODY + ',"output":1,"score":NaN}'),
    "nan_output": _raw("{" + _BODY + ',"output":NaN}'),
    "infinite_score": _raw("{" + _BODY + ',"output":1,"score":-Infinity}'),
    "score_overflow": _raw("{" + _BODY + ',"output":1,"score":1e999}'),
    "two_values": lambda ts, n: _prediction(ts, n) + b" " + _prediction(ts, n),
    "trailing_comma": _raw("{" + _BODY + ',"output":1,}'),
    "single_quotes": lambda ts, n: _prediction(ts, n).replace(b'"', b"'"),
    "word": _raw("prediction @N"),
    "number": _raw("@N"),
    "null": _raw("null"),
    "list": _raw("[@N]"),
    "empty_object": _raw("{}"),
    "zero_bytes": lambda ts, n: bytes(1 + n % 40),
    "deep_list": lambda ts, n: _prediction(ts, n, output="#").replace(b'"#"', b"[" * 5_000 + b"]" * 5_000),
    "deep_unclosed": lambda ts, n: b'{"type":"prediction","id":' + b"[" * 50_000,
    "deep_slices": lambda ts, n: _prediction(ts, n, slices="#").replace(b'"#"', b'{"a":' * 500 + b"1" + b"}" * 500),
    "huge_integer_time": _raw('{"type":"feedback","id":"bad-@N","ts":' + "9" * 400 + ',"truth":1}'),
    "huge_integer_row": _raw("{" + _BODY + ',"output":1,"row":' + "9" * 40 + "}"),
    "huge_integer_output": _raw("{" + _BODY + ',"output":' + "9" * 5_000 + "}"),
    "id_missing": lambda ts, n: _prediction(ts, n, id=None),
    "id_empty": lambda ts, n: _prediction(ts, n, id=""),
    "id_long": lambda ts, n: _prediction(ts, n, id="x" * (129 + n)),
    "id_number": lambda ts, n: _prediction(ts, n, id=n),
    "model_missing": lambda ts, n: _prediction(ts, n, model=None),
    "model_list": lambda ts, n: _prediction(ts, n, model=["fraud"]),
    "version_missing": lambda ts, n: _prediction(ts, n, version=None),
    "version_number": lambda ts, n: _prediction(ts, n, version=42),
    "output_missing": lambda ts, n: _prediction(ts, n, output=None),
    "output_object": lambda ts, n: _prediction(ts, n, output={"class": 1}),
    "score_text": lambda ts, n: _prediction(ts, n, score="high"),
    "score_above_one": lambda ts, n: _prediction(ts, n, score=1.5),
    "score_below_zero": lambda ts, n: _prediction(ts, n, score=-0.01),
    "role_unknown": lambda ts, n: _prediction(ts, n, role="boss"),
    "slices_list": lambda ts, n: _prediction(ts, n, slices=["DE"]),
    "slice_object": lambda ts, n: _prediction(ts, n, slices={"country": {"name": "DE"}}),
    "row_text": lambda ts, n: _prediction(ts, n, row="first"),
    "type_missing": lambda ts, n: _prediction(ts, n, type=None),
    "type_unknown": lambda ts, n: _prediction(ts, n, type="prophecy"),
    "type_number": lambda ts, n: _prediction(ts, n, type=3),
    "time_object": lambda ts, n: _prediction(ts, n, ts={"ms": ts}),
    "time_word": lambda ts, n: _prediction(ts, n, ts="yesterday"),
    "time_negative": lambda ts, n: _prediction(ts, n, ts=-ts),
    "time_not_a_date": lambda ts, n: _prediction(ts, n, ts="2026-02-30T25:61:00Z"),
    "truth_missing": lambda ts, n: _feedback(ts, n, truth=None),
    "truth_object": lambda ts, n: _feedback(ts, n, truth={"value": 1}),
    "feedback_id_missing": lambda ts, n: _feedback(ts, n, id=None),
    "engagement_above_one": lambda ts, n: _feedback(ts, n, truth=None, engagement=7),
    "status_unknown": lambda ts, n: _line(type="deployment", ts=ts, model="fraud", version="v41", status="alive"),
    "status_missing": lambda ts, n: _line(type="deployment", ts=ts, model="fraud", version="v41"),
    "deployment_version_missing": lambda ts, n: _line(type="deployment", ts=ts, model="fraud", status="live"),
}

# Right in form, absurd in time: a clock that believed one of them would mature, evict or forget everything.
LEAPS: dict[str, Spoiler] = {
    "prediction_next_week": lambda ts, n: _prediction(ts + 7 * DAY_MS + n, n),
    "feedback_in_two_days": lambda ts, n: _feedback(ts + 2 * DAY_MS + n, n),
    "prediction_in_microseconds": lambda ts, n: _prediction(ts * 1000, n),
    "feedback_year_9999": lambda ts, n: _feedback(253_402_300_799_000, n),
    "prediction_year_9999": lambda ts, n: _prediction(0, n, ts="9999-12-31T23:59:59Z"),
}


def spoil(recording: Recording, seed: int, share: float = 0.2) -> Spoiled:
    """Add `share` of the number of lines as noise, and a few copies of every deployment.

    Copies and contradictions of a line come after it, at once or up to `LONGEST_RETURN_MS` later, some with their old
    time and some with the time of the line before. Two leaps never stand in one gap, so every leap is alone.
    """
    rng = np.random.default_rng(seed)
    total = sum(SHARES.values())
    counts = {kind: int(len(recording.lines) * share * part / total) for kind, part in SHARES.items()}
    gaps: list[int] = []
    texts: list[bytes] = []
    added: Counter[str] = Counter()

    def add(kind: str, rows: list[int], lines: list[bytes]) -> None:
        gaps.extend(rows)
        texts.extend(lines)
        added[kind] += len(lines)

    for kind in ("prediction_again", "prediction_later", "feedback_again", "feedback_later"):
        rows = _rows(recording, rng, PREDICTION if kind.startswith("prediction") else FEEDBACK, counts[kind])
        places = rows if kind.endswith("again") else _later(recording, rng, rows)
        add(kind, places.tolist(), [recording.lines[row] for row in rows.tolist()])
    for kind, field in (("prediction_conflicting", "output"), ("feedback_conflicting", "truth")):
        rows = _rows(recording, rng, PREDICTION if field == "output" else FEEDBACK, counts[kind])
        places = _later(recording, rng, rows)
        pairs = zip(rows.tolist(), places.tolist(), strict=True)
        add(kind, places.tolist(), [_contradiction(recording, row, place, field) for row, place in pairs])
    for row in np.flatnonzero(recording.kinds == DEPLOYMENT).tolist():
        rows = np.repeat(row, DEPLOYMENT_COPIES)
        places = np.concatenate((rows[:1], _later(recording, rng, rows[1:])))
        add("deployment_again", places.tolist(), [recording.lines[row]] * DEPLOYMENT_COPIES)

    last = int(np.searchsorted(recording.ts, recording.ts[-1] - UNKNOWN_REST_MS))
    for kind, few in (
        ("feedback_unknown", last),
        ("malformed", len(recording.lines)),
        ("leap", len(recording.lines) - 1),
    ):
        places = rng.choice(few - 1, min(counts[kind], few // 2), replace=False) + 1
        add(kind, places.tolist(), _strangers(recording, kind, places, added))
    return _merged(recording, gaps, texts, added)


def _rows(recording: Recording, rng: np.random.Generator, kind: int, count: int) -> Ints:
    return rng.choice(np.flatnonzero(recording.kinds == kind), count, replace=False)


def _later(recording: Recording, rng: np.random.Generator, rows: Ints) -> Ints:
    """Return for each line a later line after which its copy comes, spread over what is left of the recording."""
    longest = np.minimum(LONGEST_RETURN_MS, recording.ts[-1] - recording.ts[rows])
    until = recording.ts[rows] + (rng.random(len(rows)) * longest).astype(np.int64)
    return np.maximum(rows, np.searchsorted(recording.ts, until, side="right") - 1)


def _contradiction(recording: Recording, row: int, place: int, field: str) -> bytes:
    """Return the line with the opposite answer; every second one also with the time of its new place."""
    event = orjson.loads(recording.lines[row])
    event[field] = 1 - event[field]
    if row % 2:
        event["ts"] = int(recording.ts[place])
    return orjson.dumps(event)


def _strangers(recording: Recording, kind: str, places: Ints, added: Counter[str]) -> list[bytes]:
    """Return lines that belong to no original line, and count malformed ones and leaps also by their own kind."""
    times = recording.ts[places].tolist()
    if kind == "feedback_unknown":
        return [_feedback(ts, n, id=f"nobody-{n}") for n, ts in enumerate(times)]
    patterns = list((MALFORMED if kind == "malformed" else LEAPS).items())
    lines = []
    for n, ts in enumerate(times):
        name, pattern = patterns[n % len(patterns)]
        lines.append(pattern(ts, n))
        added[f"{kind}:{name}"] += 1
    return lines


def _merged(recording: Recording, gaps: list[int], texts: list[bytes], added: Counter[str]) -> Spoiled:
    """Put each added line after the original line of its gap."""
    originals = len(recording.lines)
    order = np.argsort(np.concatenate((np.arange(originals), np.array(gaps))), kind="stable")
    lines = [recording.lines[i] if i < originals else texts[i - originals] for i in order.tolist()]
    return Spoiled(lines=lines, added=dict(added), position=np.flatnonzero(order < originals))
