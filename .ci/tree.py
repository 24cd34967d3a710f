"""List the files of the repository as the checks see them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
# The folders of the five packages, and the part of a path that Python does not see.
PACKAGES = ("streams", "actions", "detectors", "console", "sdk/unship")
NOT_IMPORTED = "sdk/"


class Module(NamedTuple):
    """A module of the packages: its dotted name, its path from the root, and its syntax tree."""

    name: str
    path: str
    tree: ast.Module
    is_package: bool


def tracked(*suffixes: str) -> list[Path]:
    """Return the files that are committed or would be, sorted; with suffixes, only those.

    Not yet committed files count, so that a check finds before a commit what it would find after it.
    """
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / name for name in sorted(set(listing.stdout.split("\0"))) if name)
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def name_of(path: Path) -> str:
    """Return the path as written from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def modules_of(paths: Iterable[Path]) -> list[Module]:
    """Return the modules of the packages among the paths, parsed, in order of their dotted names."""
    found = []
    for path in paths:
        name = name_of(path)
        if path.suffix == ".py" and any(name.startswith(f"{package}/") for package in PACKAGES):
            dotted = name.removeprefix(NOT_IMPORTED).removesuffix(".py").replace("/", ".")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found.append(Module(dotted.removesuffix(".__init__"), name, tree, path.stem == "__init__"))
    return sorted(found, key=lambda module: module.name)
