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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from class_state import Definition, assigned, own_name
from ratchet import Count
from tree import Module

# Names of the standard library that begin with an underscore only to stay clear of others.
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}

Class = tuple[str, str]
Function = Definition | ast.Lambda


class Names(NamedTuple):
    """What is known of the classes of all modules."""

    # Name as a module writes it -> the class. A class of another distribution has the module it comes from.
    seen: dict[str, dict[str, Class]]
    # Class -> its attributes -> their classes; what a method returns is under `name()`.
    attributes: dict[Class, dict[str, Class]]
    # Module -> every name that its classes define.
    owned: dict[str, set[str]]
    # Every name that any of their classes defines.
    anywhere: set[str]


def seen_in(module: Module) -> dict[str, Class]:
    """Return the names of a module that may be classes: its own, and what it imports by name."""
    found: dict[str, Class] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = module.name, node.name
    return found


def annotated(node: ast.expr | None, seen: Mapping[str, Class]) -> Class | None:
    """Return the class that an annotation names: `Fold`, `"Fold"`, `Fold | None`, `fold.Fold`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return annotated(ast.parse(node.value, mode="eval").body, seen)
    if isinstance(node, ast.BinOp):
        sides = [side for side in (node.left, node.right) if not isinstance(side, ast.Constant) or side.value]
        return annotated(sides[0], seen) if len(sides) == 1 else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in seen:
        return ".".join(seen[node.value.id]), node.attr
    found = seen.get(node.id) if isinstance(node, ast.Name) else None
    return None if found == ("typing", "Any") else found


def called(node: ast.expr, seen: Mapping[str, Class]) -> Class | None:
    """Return the class that an expression makes: `Fold(...)`, or a named constructor, `Fold.restore(...)`."""
    if not isinstance(node, ast.Call):
        return None
    made = node.func
    if isinstance(made, ast.Attribute) and not is_class(made.attr):
        made = made.value
    found = annotated(made, seen) if isinstance(made, ast.Name | ast.Attribute) else None
    if found is None and isinstance(made, ast.Attribute):
        found = ast.unparse(made.value), made.attr
    return found if found and is_class(found[1]) else None


def is_class(name: str) -> bool:
    """Return whether a name is written like that of a class."""
    return name.lstrip("_")[:1].isupper()


class Scope:
    """The classes of the local names of a function, and which of them it has made itself."""

    def __init__(self, names: Names, module: str, outer: Scope | None = None) -> None:
        self.names = names
        self.seen = names.seen[module]
        self.types: dict[str, Class | None] = dict(outer.types) if outer else {}
        self.made: set[str] = set()

    def enter(self, function: Function, own: str | None, owner: Class | None) -> None:
        """Learn the arguments and the assignments of a function."""
        arguments, annotations = function.args, dict[str, Class | None]()
        for entry in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            annotations[entry.arg] = annotated(entry.annotation, self.seen)
        if own and owner:
            annotations[own] = owner
        values = defaultdict(list)
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values[node.targets[0].id].append(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                annotations[node.target.id] = annotated(node.annotation, self.seen)
        self.types |= annotations
        for name, given in values.items():
            if all(called(value, self.seen) or is_new(value) for value in given):
                self.made.add(name)
            types = {self.type_of(value) for value in given}
            if name not in annotations:
                self.types[name] = types.pop() if len(types) == 1 else None

    def type_of(self, node: ast.expr) -> Class | None:
        """Return the class of an expression, or None if simple reading does not give it."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := self.type_of(node.value)):
            return self.names.attributes.get(owner, {}).get(node.attr)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and (owner := self.type_of(node.func.value)):
                return self.names.attributes.get(owner, {}).get(f"{node.func.attr}()")
            return called(node, self.seen)
        return None


def is_new(node: ast.expr) -> bool:
    """Return whether an expression makes an object: `cls(...)` or `anything.__new__(...)`."""
    if not isinstance(node, ast.Call):
        return False
    return ast.unparse(node.func) == "cls" or (isinstance(node.func, ast.Attribute) and node.func.attr == "__new__")


def defined_by(node: ast.ClassDef) -> set[str]:
    """Return every name that a class defines: its body's, its slots and what its methods assign."""
    found = assigned(node)
    for entry in node.body:
        if isinstance(entry, Definition | ast.ClassDef):
            found.add(entry.name)
        elif isinstance(entry, ast.Assign | ast.AnnAssign):
            targets = entry.targets if isinstance(entry, ast.Assign) else [entry.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def types_in(node: ast.ClassDef, seen: Mapping[str, Class], names: Names, module: str) -> dict[str, Class]:
    """Return the classes of a class's attributes and of what its methods return, as far as they are annotated."""
    found: dict[str, Class | None] = {}
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
            found[entry.target.id] = annotated(entry.annotation, seen)
        elif isinstance(entry, Definition):
            is_property = any(ast.unparse(mark).endswith("property") for mark in entry.decorator_list)
            found[entry.name if is_property else f"{entry.name}()"] = annotated(entry.returns, seen)
            scope = Scope(names, module)
            scope.enter(entry, None, None)
            for part in ast.walk(entry):
                target = part.targets[0] if isinstance(part, ast.Assign) else getattr(part, "target", None)
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) == own_name(entry):
                    value = getattr(part, "value", None)
                    given = scope.type_of(value) if isinstance(value, ast.expr) else None
                    found[target.attr] = (
                        annotated(getattr(part, "annotation", None), seen) or given or found.get(target.attr)
                    )
    return {name: kind for name, kind in found.items() if kind}


def names_of(modules: Iterable[Module]) -> Names:
    """Gather what is known of the classes of all modules."""
    modules = list(modules)
    names = Names({module.name: seen_in(module) for module in modules}, {}, defaultdict(set), set())
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                names.owned[module.name] |= defined_by(node)
                names.attributes[module.name, node.name] = types_in(node, names.seen[module.name], names, module.name)
    names.anywhere.update(*names.owned.values())
    return names


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
