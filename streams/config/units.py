"""Parse and print durations and limits as operators write them: `10m`, `7d`, `2 per 1d`."""

from __future__ import annotations

import re
from math import ceil

from unship.errors import ConfigurationError

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

NEVER = 2**62
"""A time that does not come, in milliseconds since the epoch."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_SHOWN_MS = (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", 1_000))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_UNITS_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*(KiB|MiB|GiB|TiB|)")
_FRACTION = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*(%|)")
_LIMIT = re.compile(r"(\d{1,9})\s+per\s+(.+)")
DURATION_MS_MAX = 10 * 366 * DAY_MS
"""Ten years: longer spans are typing errors."""


def duration_ms(text: str | int, path: str) -> int:
    """Return a duration in milliseconds.

    Args:
        text: A number and a unit (`ms`, `s`, `m`, `h`, `d`, `w`), or the bare number 0.
        path: The key in the configuration, for the error.

    Raises:
        ConfigurationError: The text is no duration or is longer than ten years.

    Example:
        >>> duration_ms("10m", "labels.early")
        600000
    """
    if text == 0:
        return 0
    found = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(f"{path}: expected a duration such as 30s, 10m, 1h or 7d, was {text!r}")
    span = float(found[1]) * _UNITS_MS[found[2]]
    if span > DURATION_MS_MAX:
        raise ConfigurationError(
            f"{path}: {str(text)[:40]} is longer than the limit of ten years ({DURATION_MS_MAX} ms)"
        )
    return round(span)


def size_bytes(text: str | int, path: str) -> int:
    """Return a size in bytes.

    Args:
        text: A number and a unit (`KiB`, `MiB`, `GiB`, `TiB`), or a bare number of bytes.
        path: The key in the configuration, for the error.

    Raises:
        ConfigurationError: The text is no size.

    Example:
        >>> size_bytes("1.5GiB", "limits.window"), size_bytes(4096, "limits.window")
        (1610612736, 4096)
    """
    found = _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise ConfigurationError(f"{path}: expected a size such as 512MiB or 2GiB, was {str(text)[:40]!r}")
    return round(float(found[1]) * _UNITS_BYTES[found[2] or ""])


def fraction(text: str | float, path: str) -> float:
    """Return a part of a whole.

    Args:
        text: A percentage such as `5%`, or a number from 0 to 1.
        path: The key in the configuration, for the error.

    Raises:
        ConfigurationError: The text is neither.

    Example:
        >>> fraction("5%", "policy.holdback.share"), fraction(0.05, "policy.holdback.share")
        (0.05, 0.05)
    """
    found = _FRACTION.fullmatch(str(text).strip())
    if found is None or (not found[2] and float(found[1]) > 1):
        raise ConfigurationError(f"{path}: expected a percentage such as 5%, or a number such as 0.05, was {text!r}")
    return round(float(found[1]) / 100, 12) if found[2] else float(found[1])


def percent(part: float) -> str:
    """Return a part of a whole as a percentage.

    Example:
        >>> percent(0.05), percent(0.125)
        ('5 %', '12.5 %')
    """
    return f"{100 * part:.6g} %"


def count_per_span(text: str, path: str) -> tuple[int, int]:
    """Return `(count, span in milliseconds)` of a limit such as `2 per 1d`.

    Raises:
        ConfigurationError: The text is no such limit.

    Example:
        >>> count_per_span("2 per 1d", "policy.max_switches")
        (2, 86400000)
    """
    found = _LIMIT.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise ConfigurationError(f"{path}: expected a limit such as '2 per 1d', was {text!r}")
    span = duration_ms(found[2], path)
    if span <= 0:
        raise ConfigurationError(f"{path}: {text!r} is no limit; write for example '2 per 1d'")
    return int(found[1]), span


def span_text(milliseconds: int) -> str:
    """Return a duration in the largest unit that divides it.

    Example:
        >>> span_text(5_400_000), span_text(86_400_000), span_text(0)
        ('90m', '1d', '0s')
    """
    if milliseconds == 0:
        return "0s"
    for unit, size in _SHOWN_MS:
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def rounded_span(milliseconds: float) -> str:
    """Return a duration in the largest unit that it exceeds, rounded up.

    Example:
        >>> rounded_span(90), rounded_span(1_200), rounded_span(7_300_000)
        ('90ms', '2s', '3h')
    """
    for unit, size in _SHOWN_MS:
        if milliseconds > size:
            return f"{ceil(milliseconds / size)}{unit}"
    return f"{round(milliseconds)}ms"
