"""Parse and print durations and limits as operators write them: `10m`, `7d`, `2 per 1d`."""

from __future__ import annotations

import re

from unship.errors import ConfigurationError

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_LIMIT = re.compile(r"(\d{1,9})\s+per\s+(.+)")
DURATION_MS_MAX = 10 * 366 * 86_400_000
"""Ten years: longer spans are typing errors."""

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
NEVER = 2**62
"""A time after all others, in milliseconds."""


def duration_ms(text: str | int, path: str) -> int:
    """Return a duration in milliseconds.

    Args:
        text: A number and a unit (`ms`, `s`, `m`, `h`, `d`, `w`), or the bare number 0.
        path: The text's place in the configuration, for the error.

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


def count_per_span(text: str, path: str) -> tuple[int, int]:
    """Return `(count, span in milliseconds)` of a limit such as `2 per 1d`.

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
    """Return a duration in the largest unit that divides it, for messages.

    Example:
        >>> span_text(5_400_000), span_text(86_400_000), span_text(0)
        ('90m', '1d', '0s')
    """
    if milliseconds == 0:
        return "0s"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
