"""Make recordings of real predictions: two models answer for real people, and labels arrive later.

`traffic.py` describes what is real (rows, truths, answers) and what is drawn from the seed (the clock, the router, when
labels come). The slices of a request are the survey's own RELP, SEX and RAC1P; no re-encoding touches them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from console.census.facts import RecordingFacts, measure
from console.census.rows import load_rows
from console.census.scenarios import MODEL, SLICES, scenario_named
from console.census.traffic import SOURCES, TS_START_MS, Traffic, draw_traffic
from console.census.trees import load_v42


def make_recording(scenario: str, seed: int, out: BinaryIO | Path, holdback: bool = True) -> RecordingFacts:
    """Write the recording of a scenario as NDJSON in order of arrival; the same seed gives the same bytes.

    Args:
        scenario: A name of `SCENARIOS`.
        seed: Draws arrival times, the router's choice, and labels' sources and delays; the rows are always the same.
        out: A file opened for binary writing, or a path; a path that ends in `.gz` is compressed.
        holdback: Whether v41 goes on answering every tenth request after the release.

    Raises:
        ValueError: No scenario has this name.

    Example:
        >>> from io import BytesIO
        >>> facts = make_recording("decay", 1, out := BytesIO())
        >>> facts.lines == out.getvalue().count(b"\\n"), facts.predictions
        (True, 41125)
    """
    wanted = scenario_named(scenario)
    traffic = draw_traffic(wanted, np.random.default_rng(seed), holdback)
    lines = _lines(traffic, holdback)
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


def _lines(traffic: Traffic, holdback: bool) -> list[bytes]:
    """Put deployments, predictions and labels into one order of arrival; ties keep this order of kinds."""
    asked = traffic.requests
    released_at = int(np.argmax(asked.released))
    start = [first_deployment(TS_START_MS)]
    release = release_deployments(int(asked.ts_ms[released_at]), holdback)
    predictions = list(_predictions(traffic))
    labels = list(_labels(traffic))
    ts_ms = np.concatenate(
        [[event["ts"] for event in (*start, *release)], asked.ts_ms, asked.ts_label_ms[asked.labelled]], dtype=np.int64
    )
    lines = [_line(event) for event in (*start, *release)] + predictions + labels
    return [lines[at] for at in np.argsort(ts_ms, kind="stable").tolist()]


def first_deployment(ts_ms: int) -> dict[str, Any]:
    """Return what the release pipeline states of v41, with its offline metrics from the survey of 2015."""
    rows = load_rows()
    known = rows.year == rows.year[0]
    wrong = float((rows.prediction[known] != rows.truth[known]).mean())
    squared = float(((rows.probability[known] - rows.truth[known]) ** 2).mean())
    reference = {
        "zero_one": {"mean": round(wrong, 6), "n": int(known.sum())},
        "brier": {"mean": round(squared, 6), "n": int(known.sum())},
    }
    return {**_deployment(ts_ms, "v41", "live"), "reference": reference}


def release_deployments(ts_ms: int, holdback: bool) -> list[dict[str, Any]]:
    """Return what the release pipeline states when v42 replaces v41, with the offline metrics of v42.

    Without a holdback there is no deployment of v41: it is replaced, but could be loaded again.
    """
    v42 = load_v42()
    reference = {loss: {"mean": metric.mean, "n": metric.n} for loss, metric in v42.model.offline.items()}
    release = {**_deployment(ts_ms, "v42", "live"), "previous": "v41", "artifact": v42.artifact, "reference": reference}
    return [release, _deployment(ts_ms, "v41", "holdback")] if holdback else [release]


def _deployment(ts_ms: int, version: str, status: str) -> dict[str, Any]:
    return {"type": "deployment", "ts": ts_ms, "model": MODEL, "version": version, "status": status}


def _predictions(traffic: Traffic) -> Iterator[bytes]:
    """Yield one line per request."""
    asked = traffic.requests
    role = np.where(asked.held, "holdback", "live").tolist()
    version = np.where(traffic.by_v42, "v42", "v41").tolist()
    slices = zip(*(asked.rows.feature(name).tolist() for name in SLICES), strict=True)
    columns = (asked.rows.row, asked.ts_ms, traffic.output, traffic.score)
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
    asked = traffic.requests
    has = asked.labelled
    columns = (asked.rows.row[has], asked.ts_label_ms[has], traffic.reported()[has], asked.source[has])
    names = [name for name, _, _, _ in SOURCES]
    for row, ts, truth, source in zip(*(column.tolist() for column in columns), strict=True):
        yield _line(
            {"type": "feedback", "id": f"ma-{row}", "ts": ts, "model": MODEL, "truth": truth, "source": names[source]}
        )


def _line(event: dict[str, Any]) -> bytes:
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
