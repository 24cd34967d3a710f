"""Find attributes that are changed from outside the module of their class, and private ones that are read there.

The module is the unit that keeps its state to itself: inside it, functions and classes may share what they like. So
an assignment to `thing.name` (also `+=`, `del`, and for a private name each use) is judged by where the class of
`thing` is defined, as far as annotations, constructors and results with annotations give it. Where they do not, the
name decides: it must belong to a class of the module. The first rule alone would miss whatever is not annotated, the
second alone whatever has a common name, such as `epoch`.

Not counted: what a method does to its own object, documented names with an underscore (`_replace`), assignments to
the public attributes of what the same function has just made by calling a class, for that is still its construction,
and those to public attributes that no class of the packages has, for they are the interface of another library. What
another library keeps private counts: it may change with any release.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence

from class_state import Definition, own_name
from known_types import Class, Names, Scope, names_of
from ratchet import Count
from tree import Module

# Names of the standard library that begin with an underscore only to stay clear of others.
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}


def is_private(name: str) -> bool:
    """Return whether an attribute is one that only its class should know."""
    return name.startswith("_") and not name.endswith("_") and name not in DOCUMENTED


class Reading:
    """The findings of one module while its functions are read."""

    def __init__(self, module: Module, names: Names) -> None:
        self.module = module
        self.names = names
        self.written: dict[str, list[str]] = defaultdict(list)
        self.private: list[str] = []

    def read(self, node: ast.AST, scope: Scope, own: frozenset[str], owner: Class | None) -> None:
        """Judge the uses of attributes under a node; `own` are the names of the methods' own objects around it."""
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.ClassDef):
                self.read(part, scope, own, (self.module.name, part.name))
            elif isinstance(part, Definition | ast.Lambda):
                itself = own_name(part) if owner and isinstance(part, Definition) else None
                inner = Scope(self.names, self.module.name, scope)
                inner.enter(part, itself, owner)
                self.read(part, inner, own | {itself} if itself else own, None)
            else:
                if isinstance(part, ast.Attribute):
                    self.judge(part, scope, own)
                self.read(part, scope, own, owner)

    def judge(self, node: ast.Attribute, scope: Scope, own: frozenset[str]) -> None:
        """Note a use of an attribute if its class is not of this module."""
        writes, private = isinstance(node.ctx, ast.Store | ast.Del), is_private(node.attr)
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        if not (writes or private) or name in own or ast.unparse(node.value) == "super()":
            return
        if writes and not private and name in scope.made:
            return
        kind = scope.type_of(node.value)
        if kind is None and name in scope.seen and name not in scope.types:
            kind = scope.seen[name]
        if kind[0] == self.module.name if kind else node.attr in self.names.owned[self.module.name]:
            return
        use = f"{kind[1] + '.' if kind else ''}{node.attr} in line {node.lineno}"
        if private:
            self.private.append(use)
        elif kind in self.names.attributes or (kind is None and node.attr in self.names.anywhere):
            self.written[node.attr].append(use)


def outside(modules: Sequence[Module]) -> Iterator[Count]:
    """Yield the writes from outside by module and attribute, and the uses of private attributes by module."""
    names = names_of(modules)
    for module in modules:
        reading = Reading(module, names)
        reading.read(module.tree, Scope(names, module.name), frozenset(), None)
        for attribute, uses in sorted(reading.written.items()):
            yield Count("writes", f"{module.path}:{attribute}", len(uses), where=", ".join(uses))
        if reading.private:
            yield Count("private", module.path, len(reading.private), where=", ".join(reading.private))
