"""The repository's own checks find what they are there for."""

from __future__ import annotations

from pathlib import Path

import pytest


def python_file(folder: Path, text: str) -> Path:
    path = folder / "module.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def oversized(script, monkeypatch, tmp_path):
    """Return a function that gives the gate's sentences about the sizes of a module with some text."""
    ratchet, sizes = script("ratchet"), script("sizes")
    monkeypatch.setattr(script("tree"), "ROOT", tmp_path)

    def found(text: str, exceptions: dict[str, int] | None = None) -> list[str]:
        allowed = {("lines", name): number for name, number in (exceptions or {}).items()}
        return list(ratchet.complaints(sizes.measure(python_file(tmp_path, text)), allowed))

    return found


def test_function_of_61_lines_is_named_with_both_numbers(oversized):
    (sentence,) = oversized("def long():\n" + "    x = 1\n" * 60)
    assert sentence == "module.py:long: 61 lines > 60: split it by what its parts do"


def test_docstring_does_not_count_towards_the_length_of_a_function(oversized):
    text = 'def long():\n    """Explain.\n' + "\n    more\n" * 40 + '    """\n' + "    x = 1\n" * 59
    assert oversized(text) == []


def test_method_in_a_branch_is_measured_too(oversized):
    (sentence,) = oversized("if True:\n    class A:\n        def long(self):\n" + "            x = 1\n" * 60)
    assert sentence.startswith("module.py:A.long: 61 lines > 60")


def test_exception_may_only_shrink(oversized):
    text, name = "def long():\n" + "    x = 1\n" * 70, "module.py:long"
    assert oversized(text, {name: 71}) == []
    assert oversized(text, {name: 70})[0].startswith("module.py:long: 71 lines > 70")
    assert oversized(text, {name: 80}) == [f".ci/ratchet.txt: {name} is down to 71 lines: lower 80 to that"]
    assert oversized("", {name: 71}) == [f".ci/ratchet.txt: {name} has 0 lines, within 0: remove the line"]


@pytest.mark.parametrize(
    "text",
    [
        "# see " + "#" + "12\n",
        "path = '/" + "work/x'\n",
        "path = '/" + "tmp/x'\n",
        "# by " + "S" + "17 it waits\n",
        "# by " + "D" + "6, cohorts\n",
        "# https://" + "py" + "pi.org/simple\n",
        "rng = np.random.default_rng" + "()\n",
        "def util" + "_of(): ...\n",
        "water" + "mark = 3\n",
        "class Fleet" + "Manager: ...\n",
    ],
)
def test_text_that_does_not_belong_is_found(script, monkeypatch, tmp_path, text):
    words = script("words")
    monkeypatch.setattr(script("tree"), "ROOT", tmp_path)
    assert len(list(words.complaints(python_file(tmp_path, text)))) == 1


def test_ordinary_text_is_left_alone(script, monkeypatch, tmp_path):
    words = script("words")
    monkeypatch.setattr(script("tree"), "ROOT", tmp_path)
    text = '"""Null hypothesis H0; colour #fff; SHA-256; version v42; S3D; utf-8; handles."""\nkeyed = {"D1": 1}\n'
    assert list(words.complaints(python_file(tmp_path, text))) == []


def test_only_marked_blocks_of_the_readme_run(script):
    marked = "<!-- runs in CI -->\n"
    text = f"```sh\ngit clone\n```\n\n{marked}```sh\nmake demo\nmake test\n```\n\n{marked}\n```sh\nls\n```\n"
    assert script("readme").blocks(text) == ["make demo\nmake test\n", "ls\n"]


def test_failing_command_of_a_block_stops_it_and_shows_its_output(script, tmp_path):
    code, output = script("readme").run("echo before\nfalse\necho after\n", tmp_path)
    assert code == 1
    assert "before\n" in output
    assert "+ echo after" not in output


def test_contract_binds_new_modules_and_frees_drivers(script):
    contracts = script("contracts")
    contract = {"id": "pure-core", "as_packages": False, "source_modules": ["detectors"]}
    every = contracts.bound(contract, {"drivers": [], "calendars": []})["source_modules"]
    assert "detectors" in every
    assert "detectors.registry" in every
    freed = contracts.bound(contract, {"drivers": ["detectors.registry"], "calendars": []})["source_modules"]
    assert set(every) - set(freed) == {"detectors.registry"}


def test_requirement_that_the_lock_lacks_is_named(script, monkeypatch):
    lock_check = script("lock_check")
    monkeypatch.setattr(lock_check, "locked_versions", lambda: {"click": ["9.0"]})
    found = list(lock_check.unsatisfied())
    assert "expected click<8.4,>=8.1, requirements.lock has 9.0" in found
    assert any(sentence.startswith("expected numpy") and sentence.endswith("has nothing") for sentence in found)
