"""What all benchmarks share: their options, and the tables, JSON, plots and pages of what they measured.

A benchmark measures, makes one `Measured` of it, and passes that to `publish`: the tables go to standard output, and to
the files that the options name go JSON with facts about the machine, a plot, and the tables again as a part of a page.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
QUANTILES = {"p50": 0.5, "p99": 0.99, "max": 1.0}
LIBRARIES = ("aiokafka", "msgspec", "numpy", "orjson", "river")


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a table: its first column is text, the others are numbers or short words."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Hold a plot of bars: a group of them for each label, one in each group for each series."""

    title: str
    unit: str
    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Hold a plot of lines through the points of each series."""

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold what a benchmark measured: figures are for JSON, text and closing come before and after the tables."""

    name: str
    figures: Mapping[str, Any]
    tables: Sequence[Table]
    plot: Bars | Lines | None = None
    text: str = ""
    closing: str = ""


def options_of(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark: a benchmark adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and once: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine's facts there")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the plot there")
    parser.add_argument(
        "--markdown", type=Path, nargs="?", const=PAGE, metavar="PAGE", help=f"write the tables into {PAGE.name}"
    )
    return parser


def publish(measured: Measured, options: argparse.Namespace) -> None:
    """Print the tables, and write the files that the options name."""
    print(as_markdown(measured))
    facts = machine_facts()
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        shown = {"benchmark": measured.name, "quick": options.quick, "machine": facts, **measured.figures}
        options.json.write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None and measured.plot is not None:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        options.plot.write_text(drawn(measured.plot), encoding="utf-8")
    if options.markdown is not None:
        page = options.markdown.read_text(encoding="utf-8")
        options.markdown.write_text(
            with_part(page, measured.name, f"{as_markdown(measured)}\n\n{machine_line(facts)}"),
            encoding="utf-8",
        )


def tell(text: str, end: str = "\n") -> None:
    """Print on standard error how far it is."""
    print(f"\r{text}   ", end=end, file=sys.stderr, flush=True)


# Text


def as_markdown(measured: Measured) -> str:
    """Return text and tables as Markdown."""
    parts = [measured.text]
    for table in measured.tables:
        parts += [table.title, markdown_table(table.columns, table.rows)]
    return "\n\n".join(part.strip() for part in [*parts, measured.closing] if part)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def with_part(page: str, name: str, body: str) -> str:
    """Return a page with another body between the marks of a benchmark.

    >>> with_part("<!-- measured: fold -->\\nold\\n<!-- end of fold -->", "fold", "new")
    '<!-- measured: fold -->\\n\\nnew\\n\\n<!-- end of fold -->'
    """
    marks = re.compile(rf"(<!-- measured: {name} -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)
    if not marks.search(page):
        raise SystemExit(f"the page has no line <!-- measured: {name} --> with <!-- end of {name} --> after it")
    return marks.sub(lambda found: f"{found[1]}\n{body}\n\n{found[3]}", page)


# The machine


def machine_facts() -> dict[str, Any]:
    """Return what figures depend on: processors, their load, and the versions of Python and the libraries."""
    return {
        "processor": processor(),
        "processors": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def machine_line(facts: Mapping[str, Any]) -> str:
    """Return the facts as a line under a table."""
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    processors = f"{facts['processors']} x {facts['processor']}"
    return f"*{processors}, load {facts['load'][0]}; Python {facts['python']}; {libraries}.*"


def processor() -> str:
    """Name the processor as the system does, without its frequency."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


# Measuring


def clocked(work: Callable[[], object]) -> float:
    """Return the processor seconds of a piece of work, with the garbage collector off."""
    with no_collector():
        started = time.process_time()
        work()
        return time.process_time() - started


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep Python's garbage collector off, as a replay does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def in_turns(rounds: int, **works: Callable[[], float]) -> dict[str, list[float]]:
    """Return the values of some measurements, each taken once a round: what slows the machine meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median ratio of two measurements that were taken in turns.

    >>> ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0])
    2.0
    """
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


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


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, all its threads together (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Plots


def drawn(plot: Bars | Lines) -> str:
    """Return a plot as SVG, without scripts and without a date."""
    import pygal
    from pygal.style import CleanStyle

    how = {"title": plot.title, "js": [], "style": CleanStyle, "width": 900, "height": 420, "no_prefix": True,
           "disable_xml_declaration": True, "legend_at_bottom": True, "legend_at_bottom_columns": 4}  # fmt: skip
    if isinstance(plot, Bars):
        chart = pygal.Bar(y_title=plot.unit, x_label_rotation=20, **how)
        chart.x_labels = list(plot.labels)
    else:
        chart = pygal.XY(x_title=plot.x, y_title=plot.y, include_x_axis=True, dots_size=2, **how)
    chart.value_formatter = lambda value: f"{value:,.4g}"
    for name, values in plot.series.items():
        chart.add(name, list(values))
    # A comment has the date, and a script what only an interactive page would use.
    return re.sub(r"<!--.*?-->|<script.*?</script>", "", str(chart.render(is_unicode=True)), flags=re.DOTALL) + "\n"
