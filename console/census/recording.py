"""Make recordings of real predictions: two models answer for real people, and the truth arrives later.

`traffic.py` says what is real (rows, truths, answers) and what is drawn from the seed (the clock, the router, when
labels come). The slices of a request are the survey's own RELP, SEX and RAC1P; no re-encoding touches them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from console.census.facts import RecordingFacts, measure
from console.census.rows import load_rows
from console.census.scenarios import MODEL, SLICES, scenario_named
from console.census.traffic import SOURCES, TS_START_MS, Traffic, draw_traffic
from console.census.trees import load_v42


def make_recording(scenario: str, seed: int, out: BinaryIO | Path) -> RecordingFacts:
    """Write the recording of a scenario as NDJSON in order of arrival; the same seed gives the same bytes.

    Args:
        scenario: a name of `SCENARIOS`.
        seed: draws arrival times, the router's choice, and labels' sources and delays; the rows are always the same.
        out: a file opened for binary writing, or a path; a path that ends in `.gz` is compressed.

    Raises:
        ValueError: no scenario has this name.

    Example:
        >>> from io import BytesIO
        >>> facts = make_recording("decay", 1, out := BytesIO())
        >>> facts.lines == out.getvalue().count(b"\\n"), facts.predictions
        (True, 41125)
    """
    wanted = scenario_named(scenario)
    traffic = draw_traffic(wanted, np.random.default_rng(seed))
    lines = _lines(traffic)
    if isinstance(out, Path):
        with out.open("wb") as file:
            if out.suffix == ".gz":
                # Without name and time in its header the file is a function of scenario and seed alone.
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=4, mtime=0) as packed:
                    packed.write(b"".join(lines))
            else:
                file.writelines(lines)
    else:
        out.writelines(lines)
    return measure(wanted, seed, traffic, len(lines))


def _lines(traffic: Traffic) -> list[bytes]:
    """Put deployments, predictions and labels into one order of arrival; ties keep this order of kinds."""
    released_at = int(np.argmax(traffic.released))
    deployed = list(_deployments(TS_START_MS, int(traffic.ts_ms[released_at])))
    asked = list(_predictions(traffic))
    told = list(_labels(traffic))
    ts_ms = np.concatenate(
        [[ts for ts, _ in deployed], traffic.ts_ms, traffic.ts_label_ms[traffic.labelled]], dtype=np.int64
    )
    lines = [line for _, line in deployed] + asked + told
    return [lines[at] for at in np.argsort(ts_ms, kind="stable").tolist()]


def _deployments(ts_start_ms: int, ts_released_ms: int) -> Iterator[tuple[int, bytes]]:
    """Yield what the release pipeline states, with each version's offline metrics from the survey of 2015."""
    rows = load_rows()
    known = rows.year == rows.year[0]
    wrong = float((rows.prediction[known] != rows.truth[known]).mean())
    squared = float(((rows.probability[known] - rows.truth[known]) ** 2).mean())
    of_v41 = {
        "zero_one": {"mean": round(wrong, 6), "n": int(known.sum())},
        "brier": {"mean": round(squared, 6), "n": int(known.sum())},
    }
    v42 = load_v42()
    of_v42 = {loss: {"mean": metric.mean, "n": metric.n} for loss, metric in v42.model.offline.items()}
    first = {"type": "deployment", "ts": ts_start_ms, "model": MODEL, "version": "v41", "status": "live"}
    release = {"type": "deployment", "ts": ts_released_ms, "model": MODEL, "version": "v42", "status": "live"}
    keep = {"type": "deployment", "ts": ts_released_ms, "model": MODEL, "version": "v41", "status": "holdback"}
    yield ts_start_ms, _line({**first, "reference": of_v41})
    yield ts_released_ms, _line({**release, "previous": "v41", "artifact": v42.artifact, "reference": of_v42})
    yield ts_released_ms, _line(keep)


def _predictions(traffic: Traffic) -> Iterator[bytes]:
    """Yield one line per request."""
    role = np.where(traffic.released & ~traffic.by_v42, "holdback", "live").tolist()
    version = np.where(traffic.by_v42, "v42", "v41").tolist()
    slices = zip(*(traffic.rows.feature(name).tolist() for name in SLICES), strict=True)
    columns = (traffic.rows.row, traffic.ts_ms, traffic.output, traffic.score)
    for row, ts, output, score, by, serving, values in zip(
        *(column.tolist() for column in columns), version, role, slices, strict=True
    ):
        yield _line(
            {
                "type": "prediction",
                "id": f"ma-{row}",
                "ts": ts,
                "model": MODEL,
                "version": by,
                "role": serving,
                "output": output,
                "score": score,
                "slices": dict(zip(SLICES, values, strict=True)),
            }
        )


def _labels(traffic: Traffic) -> Iterator[bytes]:
    """Yield one line per label that ever comes."""
    has = traffic.labelled
    columns = (traffic.rows.row[has], traffic.ts_label_ms[has], traffic.rows.truth[has], traffic.source[has])
    names = [name for name, _, _, _ in SOURCES]
    for row, ts, truth, source in zip(*(column.tolist() for column in columns), strict=True):
        yield _line(
            {"type": "feedback", "id": f"ma-{row}", "ts": ts, "model": MODEL, "truth": truth, "source": names[source]}
        )


def _line(event: dict[str, object]) -> bytes:
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
