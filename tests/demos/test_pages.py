"""The pages show what the demo says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / ".ci"
PAGES = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]


def test_demo_says_what_the_pages_show_and_the_worked_example_has_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    docs, parts = importlib.import_module("docs"), importlib.import_module("docs_demo").demo_parts()
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    stale = [name for name, text in texts.items() if docs.refreshed(text, parts) != text]
    assert stale == [], "run .venv/bin/python .ci/docs.py"
    decision = parts["worked-example"]()
    assert "TARGET_BETTER" in decision
    assert "v41 serves" in decision
    # Their names are those of many other modules.
    for name in {path.stem for path in SCRIPTS.glob("*.py")} - before:
        sys.modules.pop(name, None)
