"""Find out of which class an object is, as far as simple reading gives it.

What counts are annotations of arguments, names and attributes, calls of a class or of one of its named constructors,
and the annotated results of functions and methods. What is not annotated stays unknown: None.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from class_state import Definition, assigned, own_name
from tree import Module

Class = tuple[str, str]
Function = Definition | ast.Lambda


class Names(NamedTuple):
    """What is known of the classes of all modules."""

    # Name as a module writes it -> the class. A class of another distribution has the module it comes from.
    seen: dict[str, dict[str, Class]]
    # Class -> its attributes -> their classes; what a method returns is under `name()`. A function counts as a
    # class whose only attribute is `()`.
    attributes: dict[Class, dict[str, Class]]
    # Module -> every name that its classes define.
    owned: dict[str, set[str]]
    # Every name that any of their classes defines.
    anywhere: set[str]


def seen_in(module: Module) -> dict[str, Class]:
    """Return the names of a module that may be classes or functions: its own, and what it imports by name."""
    found: dict[str, Class] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = module.name, node.name
    return found | {node.name: (module.name, node.name) for node in module.tree.body if isinstance(node, Definition)}


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
            if isinstance(node, ast.Assign):
                for name, value in given_to(node.targets[0], node.value):
                    values[name].append(value)
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
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (owner := self.type_of(node.func.value))
        ):
            return self.names.attributes.get(owner, {}).get(f"{node.func.attr}()")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.seen:
            function = self.names.attributes.get(self.seen[node.func.id], {})
            return function.get("()") or called(node, self.seen)
        if isinstance(node, ast.IfExp | ast.BoolOp):
            kinds = {
                self.type_of(value)
                for value in (node.values if isinstance(node, ast.BoolOp) else (node.body, node.orelse))
            }
            return kinds.pop() if len(kinds) == 1 else None
        return called(node, self.seen)


def given_to(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that an assignment sets, each with its value, also for `a, b = c, d`."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, given in zip(target.elts, value.elts, strict=False):
            yield from given_to(one, given)


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
        for entry in module.tree.body:
            if isinstance(entry, Definition) and (result := annotated(entry.returns, names.seen[module.name])):
                names.attributes[module.name, entry.name] = {"()": result}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                names.owned[module.name] |= defined_by(node)
                names.attributes[module.name, node.name] = types_in(node, names.seen[module.name], names, module.name)
    names.anywhere.update(*names.owned.values())
    return names
