"""The lines of a worker's log: ours with time and part, those of libraries on their own starts only if asked for."""

import io
import logging
import logging.config
import re
from collections.abc import Iterator

import pytest

from streams.app import LIBRARIES, log_settings

WRITERS = ("unship.control", *LIBRARIES)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Loggers are one for the process."""
    root = logging.getLogger()
    handlers, levels = list(root.handlers), {name: logging.getLogger(name).level for name in ("", *LIBRARIES)}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


def shown(level: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of lines of each level and writer is shown."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    logging.config.dictConfig(log_settings(level))
    for said in ("debug", "info", "warning", "error"):
        for name in WRITERS:
            getattr(logging.getLogger(name), said)("what happened")
    return stream.getvalue().splitlines()


def test_line_says_when_in_utc_how_serious_by_which_part_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    line = next(line for line in shown("warning", monkeypatch) if "unship" in line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING unship\.control: what happened", line)


@pytest.mark.parametrize(
    ("level", "ours", "of_faust", "of_aiokafka"),
    [("debug", 4, 4, 4), ("INFO", 3, 2, 0), ("warning", 2, 2, 0), ("error", 1, 1, 0)],
)
def test_libraries_tell_of_their_own_starts_only_with_debug(
    level: str, ours: int, of_faust: int, of_aiokafka: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(level, monkeypatch)
    counts = [sum(f" {name}: " in line for line in lines) for name in ("unship.control", "faust", "aiokafka")]
    assert counts == [ours, of_faust, of_aiokafka]
