"""Find text that does not belong in the repository.

Four kinds: addresses and paths of the machine it was written on (the repository must work with any package server,
in any folder), references to conversations a reader cannot see (numbers of issues, of clauses), names
that the glossary does without because they mean too much or too little, and metaphors of speech and ownership in
sentences, where a word of the field is exact and a reader of another mother tongue knows it.

What is left of the last kind is counted for each file in .ci/words_ratchet.txt. A number there may only shrink: one
that is higher than the truth is an error too. `words.py --write` writes the file again and refuses a larger sum.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

from tree import ROOT, name_of, tracked

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

# Sentences with these are written in other words: (pattern, what the field uses instead).
METAPHORS: tuple[tuple[str, str], ...] = (
    (r"sa(?:ys?|id|ying)", "report, state, print, record, show"),
    (r"tell(?:s|ing)?|told", "report, notify, return, mean"),
    (r"hear(?:s|d|ing)?", "receive, read"),
    (r"sp(?:eaks?|oke|oken|eaking)", "publish, apply, use (a protocol)"),
    (r"ow(?:es?|ed|ing)", "pending, not yet written"),
    (r"g(?:ives?|ave|iven|iving) (?:\w+ )?up", "release, stop, time out"),
    (r"stand(?:s|ing)?|stood", "is, is named, holds; for 'stand for': mean, represent"),
    (r"beside", "concurrent, next to, as well as"),
    (r"whoever", "name the actor: a client, a reader, an operator"),
    (r"anew", "again, from the start; for a ledger: a new incarnation"),
    (r"beli(?:es?|ed|eves?|eved|eving)", "contradict; accept, trust"),
    (r"let(?:s|ting)? go of", "cancel, drop, release"),
    (r"(?:has|have|had) (?:the|a|its|their) say", "decide, win"),
    (r"(?:at|by|on) (?:its|their|his) (?:own )?word", "as reported, as acknowledged"),
    (r"takes? (?:it|them) for granted", "assume"),
    (r"to and fro", "alternate"),
)
SENTENCES = tuple((re.compile(rf"\b(?:{source})\b", re.IGNORECASE), instead) for source, instead in METAPHORS)
# Where sentences are read: what is generated in the documentation comes from the last of these and the packages.
PROSE = ("actions/", "console/", "detectors/", "sdk/unship/", "streams/", "docs/", ".ci/docs")
PROSE_FILES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "sdk/README.md")
NOT_PROSE = re.compile(r"^```.*?^```$|^<!-- generated: (\S+) -->\n.*?^<!-- end of \1 -->", re.DOTALL | re.MULTILINE)
RATCHET = ROOT / ".ci" / "words_ratchet.txt"


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
            for word in words_of(name) & NAMES.keys():
                yield f"{name_of(path)}:{number}: '{name}': not '{word}': {NAMES[word]}"


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of what a file holds for people to read.

    That is comments, docstrings and other strings with a space; of a page, all but examples and generated parts.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield 1, NOT_PROSE.sub(lambda part: "\n" * part[0].count("\n"), text)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def metaphors(path: Path) -> list[str]:
    """Return one sentence for each metaphor in a file, in order of its lines."""
    found = []
    for start, text in sentences(path):
        for pattern, instead in SENTENCES:
            for offset, word in lines_with(pattern, text):
                found.append((start + offset - 1, word, instead))
    return [f"{name_of(path)}:{line}: '{word}': write {instead}" for line, word, instead in sorted(found)]


def read_ratchet() -> dict[str, int]:
    """Return how many metaphors each file may still have."""
    lines = RATCHET.read_text(encoding="utf-8").splitlines() if RATCHET.exists() else []
    rows = (line.split() for line in lines if line.strip() and not line.startswith("#"))
    return {name: int(number) for name, number in rows}


def compare(found: Mapping[str, list[str]], ratchet: Mapping[str, int]) -> Iterator[str]:
    """Yield the metaphors of every file that has more than it may, and each number that is out of date.

    >>> list(compare({"a.py": ["a.py:1: 'told'"]}, {"a.py": 1, "b.py": 2}))
    ['.ci/words_ratchet.txt: b.py is down from 2 to 0: run `.venv/bin/python .ci/words.py --write`']
    """
    for name, places in found.items():
        if len(places) > ratchet.get(name, 0):
            yield from places
            yield f"{name}: {len(places)} metaphors > {ratchet.get(name, 0)}"
    for name, allowed in ratchet.items():
        number = len(found.get(name, []))
        if number < allowed:
            yield (
                f".ci/words_ratchet.txt: {name} is down from {allowed} to {number}: "
                "run `.venv/bin/python .ci/words.py --write`"
            )


def write_ratchet(found: Mapping[str, list[str]]) -> int:
    """Write how many metaphors each file has; return 1, and write nothing, if there are more than before."""
    before, now = sum(read_ratchet().values()), sum(map(len, found.values()))
    if RATCHET.exists() and now > before:
        print(f"not written, there are {now} metaphors and were {before}: `make words` names the places")
        return 1
    head = "# Metaphors left in each file: explained in .ci/words.py, written by `.ci/words.py --write`.\n"
    lines = [f"{name} {len(places)}\n" for name, places in sorted(found.items()) if places]
    RATCHET.write_text(head + "".join(lines), encoding="utf-8")
    print(f"{now} metaphors in {len(lines)} files in .ci/words_ratchet.txt")
    return 0


def main(arguments: list[str]) -> int:
    """Print the findings; return 1 if there are any. `--write` writes the ratchet, paths list their metaphors."""
    prose = [path for path in tracked(".py", ".md") if name_of(path).startswith(PROSE) or name_of(path) in PROSE_FILES]
    left = {name_of(path): metaphors(path) for path in prose}
    if arguments == ["--write"]:
        return write_ratchet(left)
    if arguments:
        print(*(place for name in left if name.startswith(tuple(arguments)) for place in left[name]), sep="\n")
        return 0
    paths = [path for path in tracked() if path.suffix in READ_SUFFIXES and path.name not in NOT_OURS]
    found = [sentence for path in paths for sentence in complaints(path)]
    found += compare(left, read_ratchet())
    print("\n".join(found) or f"{len(paths)} files read, nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
