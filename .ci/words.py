"""Find text that does not belong in the repository.

Four kinds: addresses and paths of the machine it was written on (the repository must work with any package server,
in any folder), references to conversations a reader cannot see (numbers of issues, of clauses), names
that the glossary does without because they mean too much or too little, and the metaphors of .ci/metaphors.py.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import metaphors
from ratchet import complaints as beyond_ratchet
from ratchet import read_ratchet
from tree import name_of, tracked

# Each pattern is written so that it does not match itself: this file is checked like any other.
TEXT: tuple[tuple[str, str], ...] = (
    (r"\b[p]ypi\.(?:org|io)|[p]ythonhosted\.|[n]pmjs\.|[c]rates\.io", "a package server"),
    (r"[r]epo1?\.maven|[p]roxy\.golang|[d]eb\.debian", "a package server"),
    (r"--(?:extra-)?[i]ndex-url|\b[i]ndex-url\s*=|--[f]ind-links", "an option that names a package server"),
    (r"(?<![\w.])/(?:[w]ork|[r]oot|[h]ome/\w+|[o]pt/wheels|[U]sers/\w+)(?:/|\b)", "a path of one machine"),
    (r"(?<![\w.])/[t]mp/", "a path of one machine: ask tempfile or pytest's tmp_path"),
    (r"(?<![\w&/(\[#'\"])#[1-9]\d{0,4}\b(?![\w-])", "the number of an issue: write what it is about"),
    (r"\b[i]ssues? #?\d+\b", "the number of an issue: write what it is about"),
    (r"(?<![\w.\-'\"])[SD][1-9]\d?(?![\w.\-'\"=])", "the number of a clause: write what it demands"),
    (r"\.\./[s]hared\b|\b[s]hared/[a]nchors\b|\b[a]nchors/\w+\.md", "a file outside the repository"),
    (r"\bdefault_rng\(\s*\)", "a generator without a seed"),
    (r"^(?:[<]{7}|[>]{7}) ", "two halves of a merge"),
)
# Files whose text is not ours, or is numbers.
NOT_OURS = {"LICENSE", "requirements.lock"}
READ_SUFFIXES = {".py", ".pyi", ".md", ".toml", ".yaml", ".yml", ".sh", ".txt", ".cfg", ".html", ".css", ".js", ""}

# Parts of names of functions, classes, arguments and variables.
NAMES = {
    "watermark": "write coverage, frontier or clock",
    "manager": "name what it does",
    "util": "name what it does",
    "utils": "name what it does",
    "helper": "name what it does",
    "handle": "name the thing, or the act",
}
# Methods of the standard library that a class here replaces.
INHERITED = {"handle_one_request"}


def lines_with(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, matched text) for each match."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in pattern.finditer(line):
            yield number, match[0].strip()


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line number, name) for every name that a module gives to something."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def words_of(name: str) -> set[str]:
    """Split snake_case and CamelCase into lower-case words.

    >>> sorted(words_of("LabelCoverage_ratio"))
    ['coverage', 'label', 'ratio']
    """
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def complaints(path: Path) -> Iterator[str]:
    """Yield one sentence for each finding in a file."""
    text = path.read_text(encoding="utf-8")
    for source, what in TEXT:
        for number, found in lines_with(re.compile(source), text):
            yield f"{name_of(path)}:{number}: '{found}' is {what}"
    if path.suffix == ".py":
        for number, name in defined_names(ast.parse(text)):
            for word in words_of(name) & NAMES.keys() if name not in INHERITED else ():
                yield f"{name_of(path)}:{number}: '{name}': not '{word}': {NAMES[word]}"


def main() -> int:
    """Print the findings; return 1 if there are any."""
    paths = [path for path in tracked() if path.suffix in READ_SUFFIXES and path.name not in NOT_OURS]
    found = [sentence for path in paths for sentence in complaints(path)]
    found += beyond_ratchet(metaphors.counts(paths), read_ratchet("metaphors"))
    print("\n".join(found) or f"{len(paths)} files read, nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
