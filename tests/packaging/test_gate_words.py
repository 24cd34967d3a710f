"""The gate finds metaphors of speech where people read, and their number in a file may only shrink."""

from __future__ import annotations

import pytest


@pytest.fixture
def found_in(script, monkeypatch, tmp_path):
    """Return a function that gives the metaphors in a file with some text."""
    metaphors = script("metaphors")
    monkeypatch.setattr(script("tree"), "ROOT", tmp_path)

    def found(text: str, name: str = "module.py") -> list[str]:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return metaphors.metaphors(path)

    return found


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
def test_metaphor_in_a_sentence_is_found_once(found_in, text):
    assert len(found_in(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "told = say(stood)\n",
        'kinds = {"told": 1, "beside": 2}\n',
        '"""Understand a standard, standalone word of an essay."""\n',
        "# The column `says_nothing` is about showing and allowing.\n",
    ],
)
def test_identifiers_and_other_words_are_left_alone(found_in, text):
    assert found_in(text) == []


def test_finding_names_file_line_word_and_what_to_write(found_in):
    (finding,) = found_in('"""First line.\n\nThe log tells it.\n"""\n')
    assert finding.startswith("module.py:3: 'tells': write report")


def test_examples_and_generated_parts_of_a_page_are_not_read(found_in):
    page = "Line.\n```sh\nsay it\n```\n<!-- generated: a -->\nsaid\n<!-- end of a -->\nIt says so.\n"
    (finding,) = found_in(page, "page.md")
    assert finding.startswith("page.md:8: 'says'")


def test_more_metaphors_than_the_number_of_a_file_are_named_with_their_places(script, monkeypatch, tmp_path):
    metaphors, ratchet = script("metaphors"), script("ratchet")
    monkeypatch.setattr(script("tree"), "ROOT", tmp_path)
    module, other = tmp_path / "streams" / "module.py", tmp_path / "tests" / "module.py"
    for path in (module, other):
        path.parent.mkdir()
        path.write_text("# It is told,\n# and said.\n", encoding="utf-8")
    counted = metaphors.counts([module, other])
    assert list(ratchet.complaints(counted, {("metaphors", "streams/module.py"): 2})) == []
    (sentence,) = ratchet.complaints(counted, {("metaphors", "streams/module.py"): 1})
    assert sentence.startswith("streams/module.py: 2 metaphors > 1 (streams/module.py:1: 'told'")
    (sentence,) = ratchet.complaints(counted, {("metaphors", "streams/module.py"): 3})
    assert sentence.endswith("is down to 2 metaphors: lower 3 to that")
