"""Find circles of imports, and imports that go up.

An import counts wherever it is, also inside a function: that it runs late hides a circle from Python, not from a
reader. Only what is under `if TYPE_CHECKING` is left out.

The order inside a package is that of [tool.unship.layers] in pyproject.toml, from the top down: its folders, and those
of its own modules that have a level to themselves. "a | b" is one level whose parts do not know each other, "." are
the other modules of the package, and its `__init__` is above all. A package without folders needs no order.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ratchet import Count
from tree import Module

FRONT = "__init__"
OTHERS = "."


class Arrow(NamedTuple):
    """An import of one module of the packages by another, and its line."""

    source: str
    target: str
    line: int


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of a module in order, without those for type checkers."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.Import | ast.ImportFrom):
            yield part
        elif isinstance(part, ast.If) and ast.unparse(part.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for other in part.orelse:
                yield from imports(ast.Module(body=[other], type_ignores=[]))
        elif not isinstance(part, ast.expr):
            yield from imports(part)


def arrows(modules: Sequence[Module]) -> list[Arrow]:
    """Return which module imports which; a name out of a package is an import of the package's `__init__`."""
    known = {module.name for module in modules}
    found = []
    for module in modules:
        for node in imports(module.tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                inside = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in known else str(node.module) for name in inside]
            found += [Arrow(module.name, name, node.lineno) for name in targets if name in known - {module.name}]
    return found


def reached(graph: Mapping[str, Sequence[Arrow]], start: str) -> dict[str, Arrow]:
    """Return the modules that a module imports, directly or not, each with the last import of a shortest way there."""
    found: dict[str, Arrow] = {}
    rim = [start]
    while rim:
        steps = [arrow for name in rim for arrow in graph.get(name, ())]
        rim = []
        for arrow in steps:
            if arrow.target not in found:
                found[arrow.target] = arrow
                rim.append(arrow.target)
    return found


def way_round(found: Mapping[str, Arrow], start: str) -> list[Arrow]:
    """Return the imports of a shortest circle through a module that reaches itself, in order."""
    way = [found[start]]
    while way[-1].source != start:
        way.append(found[way[-1].source])
    return way[::-1]


def circles(modules: Sequence[Module]) -> Iterator[Count]:
    """Yield each set of modules that import each other in a circle, under its first module, with a shortest circle."""
    paths = {module.name: module.path for module in modules}
    graph = defaultdict(list)
    for arrow in arrows(modules):
        graph[arrow.source].append(arrow)
    ways = {name: reached(graph, name) for name in graph}
    rest = {name for name, found in ways.items() if name in found}
    while rest:
        first = min(rest)
        circle = {name for name in rest if name in ways[first] and first in ways[name]}
        steps = [f"{paths[step.source]}:{step.line}" for step in way_round(ways[first], first)]
        yield Count("circle", paths[first], len(circle), where=" -> ".join([*steps, paths[first]]))
        rest -= circle


def part_of(package: str, name: str) -> str:
    """Return the folder or module directly in a package in which a module of it lies.

    >>> part_of("streams", "streams.kafka.clients"), part_of("streams", "streams.app"), part_of("streams", "streams")
    ('kafka', 'app', '__init__')
    """
    return name.removeprefix(package).lstrip(".").partition(".")[0] or FRONT


def common_package(first: str, second: str) -> str:
    """Return the innermost package that holds both modules, or an empty name."""
    parts = []
    for one, other in zip(first.split("."), second.split("."), strict=False):
        if one != other:
            break
        parts.append(one)
    return ".".join(parts)


def levels_of(order: Sequence[str]) -> dict[str, int]:
    """Return the level of each part of a package, counted from 1 at the top."""
    parts = {name.strip(): level for level, line in enumerate(order, start=1) for name in line.split("|")}
    return {FRONT: 0, **parts}


def unplaced(modules: Sequence[Module], layers: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a sentence for each part of a package that lacks its level, and for each level without a part."""
    held: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        names = module.name.split(".")
        for depth in range(1, len(names)):
            held[".".join(names[:depth])].add(names[depth])
    for package in sorted({*held, *layers}):
        parts, order = held[package], levels_of(layers.get(package, ()))
        folders = {part for part in parts if f"{package}.{part}" in held}
        needed = folders if OTHERS in order or not folders else parts
        for part in sorted(needed - order.keys()):
            yield (
                f"{package}.{part}: expected one of the {len(order) - 1} places of {package} in [tool.unship.layers], "
                f"was none: name it there, below what imports it and above what it imports"
            )
        for part in sorted(order.keys() - parts - {FRONT, OTHERS}):
            yield f"[tool.unship.layers]: {package} has {len(parts)} parts and {part} is none of them: remove the name"


def upward(modules: Sequence[Module], layers: Mapping[str, Sequence[str]]) -> Iterator[Count]:
    """Yield the imports against the order of a package, by module and by the part that it imports."""
    paths = {module.name: module.path for module in modules}
    against: dict[tuple[str, str], list[int]] = defaultdict(list)
    numbers = {}
    for arrow in arrows(modules):
        package = common_package(arrow.source, arrow.target)
        order = levels_of(layers.get(package, ()))
        above, below = (part_of(package, name) for name in (arrow.source, arrow.target))
        high, low = (order.get(part, order.get(OTHERS)) for part in (above, below))
        free = high == low and above not in order and below not in order
        if high is not None and low is not None and high >= low and not free:
            key = paths[arrow.source], f"{package}.{below}"
            against[key].append(arrow.line)
            numbers[key] = f"{package}.{above} at level {high} imports {package}.{below} at level {low}"
    for key, lines in against.items():
        path, target = key
        where = f"{numbers[key]}, line {', '.join(map(str, lines))}"
        yield Count("arrow", f"{path}->{target}", len(lines), where=where)
