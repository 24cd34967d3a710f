"""Find metaphors of speech and ownership in sentences.

Where the field has an exact word, a reader of another mother tongue knows that one. Comments, docstrings, messages and
pages are read. The number that is left in a file is a line of .ci/ratchet.txt; `.venv/bin/python .ci/metaphors.py PATH`
lists the places in the files whose names begin with PATH.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from ratchet import Count
from tree import name_of, tracked

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
# Where sentences are not read: the names of tests are theirs, this file has the list, and the past is as it was.
NOT_READ = ("tests/", ".ci/metaphors.py", "CHANGELOG.md")
NOT_PROSE = re.compile(r"^```.*?^```$|^<!-- generated: (\S+) -->\n.*?^<!-- end of \1 -->", re.DOTALL | re.MULTILINE)


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
        for number, line in enumerate(text.splitlines(), start=start):
            found += [(number, match[0], instead) for pattern, instead in SENTENCES for match in pattern.finditer(line)]
    return [f"{name_of(path)}:{line}: '{word}': write {instead}" for line, word, instead in sorted(found)]


def counts(paths: Iterable[Path]) -> list[Count]:
    """Return the number of metaphors in each file with sentences."""
    found = []
    for path in paths:
        if path.suffix in (".py", ".md") and not name_of(path).startswith(NOT_READ):
            places = metaphors(path)
            found.append(Count("metaphors", name_of(path), len(places), where="; ".join(places)))
    return found


if __name__ == "__main__":
    for file in tracked(".py", ".md"):
        if name_of(file).startswith(tuple(sys.argv[1:])):
            print(*metaphors(file), sep="\n", end="\n" if metaphors(file) else "")
