"""Show the status as metrics of Prometheus: base units, classic histograms, and labels from bounded sets only.

Every process shows the same figures of the models, which come from the log; a query takes the maximum over instances.
What a process knows of itself (`unship_stage_seconds`, `unship_lag_records`) is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from console.web.board import CONVERGENCE_BUCKETS_S, Board
from console.web.vitals import Vitals
from streams.config.resolved import FOLD_VERSION
from streams.fold.status import ModelStatus

MODELS_MAX: Final = 1_000
VERSIONS_MAX: Final = 20
"""Models, and versions of each, that metrics name: those with most outcomes. Status has all."""


class BoardCollector(Collector):
    """Makes the metrics of what the topics show, at each scrape."""

    def __init__(self, board: Board, vitals: Vitals) -> None:
        self._board, self._vitals = board, vitals

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics."""
        status = self._board.status
        models = dict(sorted(status.models.items(), key=_of_model)[:MODELS_MAX])
        yield InfoMetricFamily("unship_build", "The rules of this monitor.", value={"fold_version": str(FOLD_VERSION)})
        yield from self._process(status.clock)
        yield _gauge("unship_halted", "What waits for an operator: partitions that are not read or folded.", [
            ((), len(status.halted)),
        ], ())  # fmt: skip
        rejected = CounterMetricFamily(
            "unship_rejected", "Lines and events that were not used, by the code of why.", labels=["code"]
        )
        for code, count in status.rejected.items():
            rejected.add_metric([code], count)
        yield rejected
        yield from _models(models)
        yield from self._decisions(models)
        yield self._incidents()
        yield self._convergence()

    def _process(self, clock_ms: int) -> Iterator[Metric]:
        lag = sorted(self._vitals.lag.items())
        yield _gauge(
            "unship_lag_records",
            "Records of a topic that this process has not read yet.",
            [((topic,), count) for topic, count in lag],
            ("topic",),
        )
        yield _gauge("unship_up", "Whether the monitor of this process works.", [((), int(self._vitals.alive))], ())
        seen = self._board.seen_ts
        yield _gauge(
            "unship_status_timestamp_seconds",
            "When a monitor last reported its status.",
            [] if seen is None else [((), seen / 1_000)],
            (),
        )
        yield _gauge(
            "unship_source_clock_timestamp_seconds",
            "How far the time of the sources has come: labels are mature by this clock.",
            [] if clock_ms < 0 else [((), clock_ms / 1_000)],
            (),
        )

    def _decisions(self, models: dict[str, ModelStatus]) -> Iterator[Metric]:
        found = CounterMetricFamily(
            "unship_decisions", "Decisions of the journal.", labels=["model", "action", "reason"]
        )
        for (model, action, reason), count in sorted(self._board.counts.items()):
            if model in models:
                found.add_metric([model, action, reason], count)
        yield found

    def _incidents(self) -> Metric:
        found = GaugeMetricFamily(
            "unship_incident_firing", "Open incidents: 1 for each.", labels=["model", "version", "severity", "reason"]
        )
        for each in list(self._board.firing.values())[-MODELS_MAX:]:
            found.add_metric([each.model, each.version, each.severity, each.reason], 1)
        return found

    def _convergence(self) -> Metric:
        total, buckets = 0, []
        for bound, count in zip((*CONVERGENCE_BUCKETS_S, float("inf")), self._board.convergence.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        found = HistogramMetricFamily(
            "unship_convergence_seconds", "From the decision to roll back until every living replica obeyed."
        )
        found.add_metric([], buckets, self._board.convergence.seconds)
        return found


def _of_model(item: tuple[str, ModelStatus]) -> tuple[int, str]:
    return -sum(item[1].outcomes.values()), item[0]


def _models(models: dict[str, ModelStatus]) -> Iterator[Metric]:
    items = sorted(models.items())
    coverage = [((name,), each.label_coverage) for name, each in items if each.label_coverage is not None]
    evidence = [((name,), each.evidence) for name, each in items if each.evidence is not None]
    yield _gauge("unship_label_coverage_ratio", "Share of predictions with a label at maturity.", coverage, ("model",))
    yield _gauge(
        "unship_evidence_ratio", "Evidence that the live version got worse; 1 raises the alarm.", evidence, ("model",)
    )
    yield _gauge(
        "unship_model_state",
        "1 for the reason of the newest decision on the model, and the version that should serve.",
        [((name, each.desired or "", each.state), 1) for name, each in items],
        ("model", "version", "reason"),
    )
    faults = {name: len(each.lagging(each.replicas)) for name, each in items}
    yield _gauge(
        "unship_replicas",
        "Living replicas, by whether they obey what is desired.",
        [
            (name_and_state, count)
            for name, each in items
            for name_and_state, count in (
                ((name, "obeying"), len(each.replicas) - faults[name]),
                ((name, "lagging"), faults[name]),
            )
        ],
        ("model", "state"),
    )
    yield _gauge(
        "unship_converged",
        "1 if every living replica obeys.",
        [((name,), int(not faults[name])) for name, _ in items],
        ("model",),
    )
    yield _gauge(
        "unship_quarantined_versions",
        "Versions that may not serve.",
        [((name,), len(each.quarantine)) for name, each in items],
        ("model",),
    )
    outcomes = CounterMetricFamily("unship_outcomes", "Labelled answers of a version.", labels=["model", "version"])
    for name, each in items:
        for version, count in sorted(each.outcomes.items(), key=lambda item: -item[1])[:VERSIONS_MAX]:
            outcomes.add_metric([name, version], count)
    yield outcomes


def _gauge(
    name: str, text: str, samples: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...]
) -> GaugeMetricFamily:
    found = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        found.add_metric(values, value)
    return found


def registry_of(board: Board, vitals: Vitals) -> CollectorRegistry:
    """Return everything that is shown: of the log, of this process, and what the system knows of it."""
    registry = vitals.registry
    registry.register(BoardCollector(board, vitals))
    ProcessCollector(registry=registry)
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus's text format."""
    return generate_latest(registry)
