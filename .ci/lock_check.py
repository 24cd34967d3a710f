"""Check that requirements.lock satisfies both pyproject.toml files, and that it names no package server.

Where uv is installed the lock is resolved again and must come out the same; without it, every requirement is looked
up in the lock, which is what a machine that only installs can know.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tree import ROOT

LOCK = ROOT / "requirements.lock"
LOCAL = {"unship"}


def locked_versions() -> dict[str, list[str]]:
    """Return name to versions; a name may have one version per range of Pythons."""
    versions: dict[str, list[str]] = {}
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            versions.setdefault(canonicalize_name(match[1]), []).append(match[2])
    return versions


def requirements() -> Iterator[Requirement]:
    """Yield what both distributions, their groups and their build systems ask for."""
    for file in (ROOT / "pyproject.toml", ROOT / "sdk" / "pyproject.toml"):
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
        groups = settings.get("dependency-groups", {}).values()
        for text in (
            *settings["project"].get("dependencies", []),
            *(item for group in groups for item in group),
            *settings["build-system"]["requires"],
        ):
            yield Requirement(text)


def unsatisfied() -> Iterator[str]:
    """Yield one sentence for each requirement that the lock does not meet."""
    versions = locked_versions()
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        found = versions.get(name, [])
        if name in LOCAL:
            continue
        if not found or not all(requirement.specifier.contains(version) for version in found):
            yield f"expected {requirement}, requirements.lock has {', '.join(found) or 'nothing'}"


def resolved_again() -> Iterator[str]:
    """Yield one sentence if uv, keeping the locked versions, would write another lock."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "requirements.lock"
        shutil.copy(LOCK, copy)
        subprocess.run(["sh", ROOT / ".ci" / "lock.sh", copy], check=True)
        if copy.read_bytes() != LOCK.read_bytes():
            yield "uv resolves to another requirements.lock"


def main() -> int:
    """Print what does not agree; return 1 if anything does not."""
    found = list(unsatisfied())
    if "://" in LOCK.read_text(encoding="utf-8"):
        found.append("requirements.lock holds an address: it must hold names, versions and hashes only")
    if shutil.which("uv") and not os.environ.get("UNSHIP_SETUP_WITHOUT_UV"):
        found += resolved_again()
        how = "resolved again with uv"
    else:
        how = "without uv: requirements looked up"
    print("\n".join([*found, "fix: make lock"]) if found else f"requirements.lock agrees ({how})")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
