"""Stop modules, functions, folders and classes that grew too large, and names that mean nothing.

The limits hold for the packages, their tests and these scripts. An exception is a line of .ci/ratchet.txt.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from class_state import classes
from ratchet import Count, complaints, read_ratchet
from tree import PACKAGES, ROOT, modules_of, name_of, tracked

MODULE_LINES_MAX = 600
MODULE_LINES_ASK = 400
FUNCTION_LINES_MAX = 60
FOLDER_MODULES_MAX = 15
NAMES_THAT_SAY_NOTHING = {"core", "util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def docstring_lines(node: Definition) -> int:
    """Return how many lines of a function are its docstring: explaining is not growing."""
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield the dotted name and the length of every function, methods and nested ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Definition | ast.ClassDef):
            name = f"{prefix}{node.name}"
            if isinstance(node, Definition) and node.end_lineno is not None:
                yield name, node.end_lineno - node.lineno + 1 - docstring_lines(node)
            yield from functions(node, f"{name}.")
        else:
            yield from functions(node, prefix)


def measure(path: Path) -> Iterator[Count]:
    """Yield the lines of the module and of each of its functions."""
    text = path.read_text(encoding="utf-8")
    yield Count("lines", name_of(path), text.count("\n"), MODULE_LINES_MAX)
    for name, lines in functions(ast.parse(text)):
        yield Count("lines", f"{name_of(path)}:{name}", lines, FUNCTION_LINES_MAX)


def folders(paths: Iterable[Path]) -> Iterator[Count]:
    """Yield the modules in each folder of the packages and of the tests; `__init__.py` is none."""
    held = Counter(name_of(path.parent) for path in paths if path.stem != "__init__")
    for folder, modules in held.items():
        if any(f"{folder}/".startswith(f"{root}/") for root in (*PACKAGES, "tests")):
            yield Count("modules", folder, modules, FOLDER_MODULES_MAX)


def counts(paths: Sequence[Path]) -> list[Count]:
    """Return the sizes of everything in the repository."""
    lines = [count for path in paths for count in measure(path)]
    return [*lines, *folders(paths), *classes(modules_of(paths))]


def main() -> int:
    """Print what is too large or badly named; return 1 if anything is."""
    paths = tracked(".py")
    counted = counts(paths)
    found = list(complaints(counted, read_ratchet("lines", "modules", "attributes")))
    for path in paths:
        parts = {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
        found += [f"{name_of(path)}: '{part}' means nothing" for part in parts & NAMES_THAT_SAY_NOTHING]
    for count in counted:
        if count.limit == MODULE_LINES_MAX and MODULE_LINES_ASK < count.number <= count.limit:
            print(f"note: {count.name} has {count.number} lines: is it one thing?")
    print("\n".join(found) or f"{len(counted)} modules, functions, folders and classes within their limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
