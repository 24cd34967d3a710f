"""Metaphors of speech are found where people read, counted for each file, and may only become fewer."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def words(monkeypatch, tmp_path):
    """Return the script, with an empty folder as the repository."""
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    module = importlib.import_module("words")
    monkeypatch.setattr(sys.modules["tree"], "ROOT", tmp_path)
    monkeypatch.setattr(module, "RATCHET", tmp_path / "words_ratchet.txt")
    yield module
    for name in ("tree", "words"):
        sys.modules.pop(name, None)


def found_in(words, folder: Path, text: str, name: str = "module.py") -> list[str]:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return words.metaphors(path)


@pytest.mark.parametrize(
    "text",
    [
        '"""Return what the replica says."""\n',
        "x = 1  # nobody is told of it\n",
        'raise ValueError("the record stands twice")\n',
        'message = f"{name} gave it up after {seconds} s"\n',
        'class A:\n    """Hold what is still owed."""\n',
        '"""Answer beside the live version."""\n',
        "# Whoever starts last wins.\n",
        "# Begin the ledger anew.\n",
    ],
)
def test_metaphor_in_a_sentence_is_found_once(words, tmp_path, text):
    assert len(found_in(words, tmp_path, text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "told = say(stood)\n",
        'kinds = {"told": 1, "beside": 2}\n',
        '"""Understand a standard, standalone word of an essay."""\n',
        "# The column `says_nothing` is about showing and allowing.\n",
    ],
)
def test_identifiers_and_other_words_are_left_alone(words, tmp_path, text):
    assert found_in(words, tmp_path, text) == []


def test_finding_names_file_line_word_and_what_to_write(words, tmp_path):
    (finding,) = found_in(words, tmp_path, '"""First line.\n\nThe log tells it.\n"""\n')
    assert finding.startswith("module.py:3: 'tells': write report")


def test_examples_and_generated_parts_of_a_page_are_not_read(words, tmp_path):
    page = "Line.\n```sh\nsay it\n```\n<!-- generated: a -->\nsaid\n<!-- end of a -->\nIt says so.\n"
    (finding,) = found_in(words, tmp_path, page, "page.md")
    assert finding.startswith("page.md:8: 'says'")


def test_file_with_more_metaphors_than_its_number_is_listed_with_all_places(words):
    found = list(words.compare({"a.py": ["a.py:1: 'told'", "a.py:9: 'said'"]}, {"a.py": 1}))
    assert found == ["a.py:1: 'told'", "a.py:9: 'said'", "a.py: 2 metaphors > 1"]


@pytest.mark.parametrize("places", [["a.py:1: 'told'"], []])
def test_number_larger_than_the_truth_is_an_error(words, places):
    (finding,) = words.compare({"a.py": places}, {"a.py": 2})
    assert finding.startswith(f".ci/words_ratchet.txt: a.py is down from 2 to {len(places)}")


def test_number_of_a_file_that_is_gone_is_an_error(words):
    assert len(list(words.compare({}, {"gone.py": 3}))) == 1


def test_written_numbers_are_read_back_and_may_move_but_not_grow(words, capsys):
    assert words.write_ratchet({"a.py": ["one", "two"], "b.py": []}) == 0
    assert words.read_ratchet() == {"a.py": 2}
    assert words.write_ratchet({"folder/a.py": ["one"], "b.py": ["two"]}) == 0
    assert words.read_ratchet() == {"b.py": 1, "folder/a.py": 1}
    assert words.write_ratchet({"a.py": ["one", "two", "three"]}) == 1
    assert "there are 3 metaphors and were 2" in capsys.readouterr().out
    assert words.read_ratchet() == {"b.py": 1, "folder/a.py": 1}
