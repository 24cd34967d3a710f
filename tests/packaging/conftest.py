"""Scripts of the gate, for the tests that run them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / ".ci"


@pytest.fixture
def script(monkeypatch):
    """Return a function that imports one of the gate's scripts by name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module
    for path in SCRIPTS.glob("*.py"):
        sys.modules.pop(path.stem, None)
