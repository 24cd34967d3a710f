"""Stop modules and functions that grew too long, and names that say nothing.

The limits hold for the packages, their tests and these scripts. What is longer than a limit stands in
.ci/ratchet.txt with its length; a length there may only shrink, and a line that is no longer needed must go.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tree import ROOT, name_of, tracked

MODULE_LINES_MAX = 600
MODULE_LINES_ASK = 400
FUNCTION_LINES_MAX = 60
NAMES_THAT_SAY_NOTHING = {"core", "util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}
RATCHET = ROOT / ".ci" / "ratchet.txt"

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


def measure(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (name, lines, limit) for the module and each of its functions."""
    text = path.read_text(encoding="utf-8")
    yield name_of(path), text.count("\n"), MODULE_LINES_MAX
    for name, lines in functions(ast.parse(text)):
        yield f"{name_of(path)}:{name}", lines, FUNCTION_LINES_MAX


def read_ratchet() -> dict[str, int]:
    """Return the exceptions: name to length."""
    if not RATCHET.exists():
        return {}
    rows = (line.rsplit(maxsplit=1) for line in RATCHET.read_text(encoding="utf-8").splitlines())
    return {row[0]: int(row[1]) for row in rows if row and not row[0].startswith("#")}


def complaints(sizes: dict[str, tuple[int, int]], ratchet: dict[str, int]) -> Iterator[str]:
    """Yield one sentence for each size over its limit and each exception that is out of date."""
    for name, (lines, limit) in sizes.items():
        allowed = ratchet.get(name, limit)
        if lines > allowed:
            yield f"{name}: {lines} lines > {allowed}"
    for name, allowed in ratchet.items():
        lines, limit = sizes.get(name, (0, 0))
        if lines <= limit:
            yield f".ci/ratchet.txt: {name} is {lines} lines, within {limit}: remove the line"
        elif lines < allowed:
            yield f".ci/ratchet.txt: {name} is down to {lines} lines: lower {allowed} to that"


def main() -> int:
    """Print what is too long or badly named; return 1 if anything is."""
    paths = tracked(".py")
    sizes = {name: (lines, limit) for path in paths for name, lines, limit in measure(path)}
    found = list(complaints(sizes, read_ratchet()))
    for path in paths:
        parts = {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
        found += [f"{name_of(path)}: '{part}' says nothing" for part in parts & NAMES_THAT_SAY_NOTHING]
    for name, (lines, limit) in sizes.items():
        if limit == MODULE_LINES_MAX and MODULE_LINES_ASK < lines <= limit:
            print(f"note: {name} has {lines} lines: is it one thing?")
    print("\n".join(found) or f"{len(paths)} modules and {len(sizes) - len(paths)} functions within their limits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
