"""What the benchmarks on Kafka share: a broker, facts about the machine, quantiles and tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kafka.cluster import Cluster
from tests.kafka.shared import VARIABLE

QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


@contextmanager
def broker() -> Iterator[str]:
    """Give the address of the broker that the environment names, or of one that lives as long as this."""
    if given := os.environ.get(VARIABLE):
        yield given
        return
    with Cluster(1) as cluster:
        yield cluster.bootstrap


def machine() -> str:
    """Name the processor, how many of it there are, and the Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{os.cpu_count()} x {names[0] if names else platform.machine()}, Python {platform.python_version()}"


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, all its threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return the quantiles of some values, NaN where there are none.

    >>> quantiles([1.0, 3.0, 2.0])
    {'p50': 2.0, 'p99': 3.0, 'max': 3.0}
    """
    ordered = sorted(values)
    if not ordered:
        return dict.fromkeys(QUANTILES, float("nan"))
    return {
        name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2) for name, share in QUANTILES.items()
    }


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))
