"""Every benchmark starts, has its place on the page about performance, and clocks functions that exist."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from tests.waiting import HANG_S

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "performance.md"
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
BENCHMARKS = sorted(name for name, text in SOURCES.items() if "= options_of(" in text)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield importlib.import_module
    for name in SOURCES:
        sys.modules.pop(name, None)


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, arguments)]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=paths, timeout=HANG_S)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_has_the_common_options(name: str) -> None:
    shown = run(name, "--help").stdout
    assert all(option in shown for option in ("--quick", "--json FILE", "--plot FILE.svg", "--markdown"))


def test_all_benchmarks_are_run_by_make_bench() -> None:
    named = re.search(r"^BENCHMARKS .*\n?.*\)\)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert named is not None
    assert set(BENCHMARKS) <= set(re.findall(r"\w+", named[0]))


def test_page_has_a_part_for_each_benchmark_and_no_other() -> None:
    parts = re.findall(r"<!-- measured: (\S+) -->\n.*?<!-- end of \1 -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    published = {name for text in SOURCES.values() for name in re.findall(r'\bMeasured\(\s*"([a-z-]+)"', text)}
    assert sorted(parts) == sorted(published)


def test_functions_that_are_clocked_inside_a_replay_exist(benchmark: Callable[[str], Any]) -> None:
    replay = benchmark("replay")
    assert all(callable(resolve_name(path)) for path in replay.PARTS)
    assert set(replay.PARTS.values()) < set(replay.STAGES)


def test_benchmark_prints_and_writes_what_it_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: audit -->\n<!-- end of audit -->\nafter\n", encoding="utf-8")
    figures, plot = tmp_path / "there" / "audit.json", tmp_path / "there" / "audit.svg"
    small = ("--quick", "--seconds", 2, "--events", 3_000)
    printed = run("audit", *small, "--json", figures, "--plot", plot, "--markdown", page).stdout
    assert "| embedded log" in printed
    written = json.loads(figures.read_text(encoding="utf-8"))
    assert [len(case["seconds"]) for case in written["cases"]] == [1, 1]
    assert written["machine"]["processors"] == os.cpu_count()
    assert page.read_text(encoding="utf-8").startswith(f"before\n<!-- measured: audit -->\n\n{printed.strip()}\n\n*")
    drawing = plot.read_text(encoding="utf-8")
    assert drawing.startswith("<svg")
    assert "script" not in drawing


def test_page_without_the_marks_of_a_benchmark_is_refused(benchmark: Callable[[str], Any]) -> None:
    with pytest.raises(SystemExit, match="measured: fold"):
        benchmark("figures").with_part("<!-- measured: audit -->\n<!-- end of audit -->", "fold", "new")
