"""Build both wheels and try them where a user would: in clean environments, away from the repository.

`unship` alone must stay light, and the monitor's wheel must give a working command. Third-party versions are those of
requirements.lock, so that this check fails for our reasons only.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from tree import ROOT

# What a serving fleet gets, and nothing else.
LIBRARY_PACKAGES = {"unship", "cffi", "cryptography", "msgspec", "pycparser"} | {
    "aiokafka",
    "async-timeout",
    "packaging",
    "typing_extensions",
}
INSTALLERS = {"pip", "setuptools", "wheel"}
MONITOR_PACKAGES = {"streams", "detectors", "actions", "console"}
UV = None if os.environ.get("UNSHIP_SETUP_WITHOUT_UV") else shutil.which("uv")

NAMES_OF_INSTALLED = """
import importlib.metadata
print(" ".join(sorted({d.metadata["Name"].lower() for d in importlib.metadata.distributions()})))
"""
LIBRARY_IMPORTS = """
import sys, tempfile, unship
for name in unship.__all__:
    getattr(unship, name)
HEAVY = {"aiokafka", "faust", "mode", "numpy", "river", "click", "asyncio"}
heavy = HEAVY & set(sys.modules)
assert not heavy, f"import unship brought in {sorted(heavy)}"
with tempfile.TemporaryDirectory() as folder, unship.Fleet("m", "v1", log=f"embedded:{folder}", trust=None) as fleet:
    fleet.predicted(1)
    assert fleet.flush() and fleet.stats.sent == 1
heavy = HEAVY & set(sys.modules)
assert not heavy, f"a fleet on an embedded log brought in {sorted(heavy)}"
assert "site-packages" in unship.__file__, unship.__file__
"""


def output_of(*command: str | Path, cwd: Path) -> str:
    """Run a command and return its standard output; show everything and stop if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def build(project: Path, folder: Path) -> Path:
    """Build a project's wheel with the locked backend and return its path."""
    before = set(folder.iterdir())
    output_of(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=project)
    (wheel,) = set(folder.iterdir()) - before
    return wheel


def constraints(folder: Path) -> Path:
    """Write the lock without its hashes: a local wheel has none to compare."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    path = folder / "constraints.txt"
    pins = [re.sub(r"\s*\\$", "", line) for line in lock.splitlines() if line[:1].strip()]
    path.write_text("\n".join(pins), encoding="utf-8")
    return path


def clean_environment(folder: Path, wheels: Sequence[Path]) -> Path:
    """Make a virtual environment with the wheels and what they ask for; return its bin folder."""
    venv.create(folder, with_pip=UV is None)
    python = folder / "bin" / "python"
    installer: list[str | Path] = [UV, "pip", "install", "--python", python] if UV else [python, "-m", "pip", "install"]
    output_of(*installer, "--quiet", "-c", constraints(folder), *wheels, cwd=folder)
    return folder / "bin"


def check_library(bin_folder: Path) -> None:
    """Check that the library alone is light, to install and to import."""
    away = bin_folder.parent
    installed = set(output_of(bin_folder / "python", "-c", NAMES_OF_INSTALLED, cwd=away).split()) - INSTALLERS
    assert installed == LIBRARY_PACKAGES, f"expected {sorted(LIBRARY_PACKAGES)}, was {sorted(installed)}"
    output_of(bin_folder / "python", "-c", LIBRARY_IMPORTS, cwd=away)
    usage = output_of(bin_folder / "unship-replica", "--help", cwd=away)
    assert usage.startswith("usage: unship-replica"), usage
    print(f"unship alone: {', '.join(sorted(installed))}", flush=True)


def check_monitor(bin_folder: Path) -> None:
    """Check that the monitor's command works and that its packages come from the wheel."""
    away = bin_folder.parent
    version = output_of(bin_folder / "unship", "version", cwd=away).strip()
    assert version, "unship version printed nothing"
    usage = output_of(bin_folder / "unship", "--help", cwd=away)
    assert usage.startswith("Usage: unship"), usage
    for package in sorted(MONITOR_PACKAGES):
        where = output_of(bin_folder / "python", "-c", f"import {package}; print({package}.__file__)", cwd=away)
        assert "site-packages" in where, f"{package} came from {where}"
    print(f"unship-monitor: {version}", flush=True)


def main() -> int:
    """Build, install and try both wheels."""
    with tempfile.TemporaryDirectory(prefix="unship-wheels-") as name:
        folder = Path(name)
        built = folder / "built"
        built.mkdir()
        library, monitor = build(ROOT / "sdk", built), build(ROOT, built)
        check_library(clean_environment(folder / "library", [library]))
        check_monitor(clean_environment(folder / "monitor", [library, monitor]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
