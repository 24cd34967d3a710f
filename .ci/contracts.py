"""Check who may import what: the contracts of pyproject.toml, run by import-linter.

A contract of import-linter binds the modules it names, so a new module would be bound by none. Here it is the other way
round: where a contract names a package, it binds every module of it except the drivers, which pyproject.toml lists
under [tool.unship]. A driver that no longer exists is an error, so that the list is always true.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tree import ROOT

FOLDERS = {"unship": ROOT / "sdk" / "unship"}


def modules(package: str) -> list[str]:
    """Return the dotted names of a package's modules, the package itself first."""
    folder = FOLDERS.get(package, ROOT / package)
    parts = (path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.py"))
    return sorted(".".join((package, *(part for part in names if part != "__init__"))) for names in parts)


def within(module: str, names: Iterable[str]) -> bool:
    """Return whether a module is one of the names or lies in a package of that name."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def bound(contract: Mapping[str, Any], house: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contract with its packages replaced by the modules that it binds."""
    if contract.get("as_packages", True):
        return dict(contract)
    free = [*house["drivers"], *(house["calendars"] if contract["id"] == "integer-time" else [])]
    every = [module for package in contract["source_modules"] for module in modules(package)]
    return {**contract, "source_modules": [module for module in every if not within(module, free)]}


def as_toml(settings: Mapping[str, Any]) -> str:
    """Write import-linter's table. Its strings, booleans and lists of strings look the same in JSON and in TOML."""
    lines = ["[tool.importlinter]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items() if key != "contracts"]
    for contract in settings["contracts"]:
        lines += ["", "[[tool.importlinter.contracts]]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in contract.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the contracts; return 1 if one is broken or a driver does not exist."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    settings, house = tool["importlinter"], tool["unship"]
    existing = [module for package in settings["root_packages"] for module in modules(package)]
    gone = [name for name in (*house["drivers"], *house["calendars"]) if name not in existing]
    if gone:
        print(f"[tool.unship] in pyproject.toml names what does not exist: {', '.join(gone)}", flush=True)
    settings["contracts"] = [bound(contract, house) for contract in settings["contracts"]]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "contracts.toml"
        config.write_text(as_toml(settings), encoding="utf-8")
        program = Path(sys.executable).with_name("lint-imports")
        linted = subprocess.run([program, "--no-cache", "--no-logo", "--config", config], cwd=ROOT, check=False)
    if linted.returncode:
        print("fix: move what touches the world into a driver, or name a new driver in [tool.unship] of pyproject.toml")
    return 1 if gone or linted.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
