"""Count the attributes of classes that change: how much one has to keep in mind to call a method.

What counts is every distinct `self.name = ...` in a method, and every annotated field of a dataclass or Struct. A
record is not state and may have as many fields as its format needs: a frozen class (also one that inherits it), a
NamedTuple, a Protocol, an Enum, and a Struct or dataclass without a method that assigns to `self`, as long as nobody
assigns to its fields: one that is assigned to from a function of its module is a bag operated from outside, and
counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from ratchet import Count
from tree import Module

ATTRIBUTES_MAX = 12
RECORDS = {"NamedTuple", "Protocol", "TypedDict", "Enum", "IntEnum", "StrEnum", "IntFlag", "Flag"}

Definition = ast.FunctionDef | ast.AsyncFunctionDef


def last_name(node: ast.expr) -> str:
    """Return the last part of a dotted name, past a subscript or a call."""
    if isinstance(node, ast.Call):
        return last_name(node.func)
    if isinstance(node, ast.Subscript):
        return last_name(node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def own_name(method: Definition) -> str | None:
    """Return what a method calls its object, or None for a static method."""
    if any(last_name(decorator) == "staticmethod" for decorator in method.decorator_list):
        return None
    names = [*method.args.posonlyargs, *method.args.args]
    return names[0].arg if names else None


def assigned(node: ast.ClassDef) -> set[str]:
    """Return the attributes that the methods of a class assign to their object."""
    found = set()
    for method in node.body:
        if isinstance(method, Definition) and (own := own_name(method)):
            for part in ast.walk(method):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store | ast.Del):
                    found |= {part.attr} if isinstance(part.value, ast.Name) and part.value.id == own else set()
    return found


def fields(node: ast.ClassDef) -> set[str]:
    """Return the annotated fields of a class, without those of the class itself."""
    return {
        entry.target.id
        for entry in node.body
        if isinstance(entry, ast.AnnAssign)
        and isinstance(entry.target, ast.Name)
        and last_name(entry.annotation) not in {"ClassVar", "Final"}
    }


def settings_of(node: ast.ClassDef) -> list[ast.keyword]:
    """Return the keywords of the class and of its decorators."""
    return [
        *node.keywords,
        *(word for call in node.decorator_list if isinstance(call, ast.Call) for word in call.keywords),
    ]


def is_record(node: ast.ClassDef, named: Mapping[str, ast.ClassDef]) -> bool:
    """Return whether a class is frozen, or one of the kinds that have no state, by itself or by inheritance."""
    for word in settings_of(node):
        if word.arg == "frozen" and isinstance(word.value, ast.Constant):
            return word.value.value is True
    bases = [last_name(base) for base in node.bases]
    return any(base in RECORDS for base in bases) or any(
        is_record(named[base], named) for base in bases if base in named and named[base] is not node
    )


def has_fields(node: ast.ClassDef, named: Mapping[str, ast.ClassDef]) -> bool:
    """Return whether the annotations of a class are its fields: those of a Struct or a dataclass."""
    if any(last_name(decorator) == "dataclass" for decorator in node.decorator_list):
        return True
    bases = [last_name(base) for base in node.bases]
    return "Struct" in bases or any(
        has_fields(named[base], named) for base in bases if base in named and named[base] is not node
    )


def written_in(tree: ast.Module) -> set[str]:
    """Return the attributes that a module assigns to anything but `self`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }


def classes(modules: Sequence[Module]) -> Iterator[Count]:
    """Yield the number of attributes of every class with state."""
    every = [(module, node) for module in modules for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    named = {node.name: node for _, node in every}
    written = {module.name: written_in(module.tree) for module in modules}
    for module, node in every:
        if is_record(node, named):
            continue
        own, declared = assigned(node), fields(node) if has_fields(node, named) else set()
        if own or declared & written[module.name]:
            yield Count("attributes", f"{module.path}:{node.name}", len(own | declared), ATTRIBUTES_MAX)
