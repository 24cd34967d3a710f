"""The tests keep to their own rules: what they import, how they wait, and which folder runs when."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("*.py"))
#: What waits no longer looks again, or waits for what must not come.
WAIT_S = 1.0


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def limits(path: Path) -> Iterator[tuple[int, float]]:
    """Yield line and seconds of each limit that is written as a number where something is waited for."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "timeout"]
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("wait_for", "timeout", "wait"):
            given += node.args[-1:]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
                yield node.lineno, value.value


def test_no_test_module_imports_another_one() -> None:
    found = {
        (path, name) for path in MODULES for name in imported(path) if name.startswith("tests.") and ".test_" in name
    }
    assert found == set()


def test_nothing_is_waited_for_with_a_limit_of_its_own() -> None:
    """The program of faults measures how soon the work goes on after each of them."""
    found = {(path, *limit) for path in MODULES for limit in limits(path) if limit[1] > WAIT_S}
    assert {entry for entry in found if entry[0].parent.name != "faults"} == set()


def test_settings_of_all_tests_load_nothing_of_kafka() -> None:
    program = "import sys; import tests.conftest; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"aiokafka", "faust", "tests.kafka"}


def test_page_for_contributors_says_of_every_folder_when_it_runs() -> None:
    """The folders of `make test` are those of pytest's own list."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    always = {Path(name).name for name in options["testpaths"] if name.startswith("tests/")}
    said: dict[str, str] = {}
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        if line.endswith("| `make test` |") or line.endswith("| `make test-all` |"):
            _, folders, _, when, _ = (cell.strip() for cell in line.split("|"))
            said |= {name.strip("` "): when for name in folders.split(",")}
    with_tests = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert set(said) == with_tests
    assert {name for name, when in said.items() if when == "`make test`"} == always
