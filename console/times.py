"""Parse times as operators type them, and show times to them."""

from __future__ import annotations

from datetime import UTC, datetime

from unship.errors import ConfigurationError


def time_ms(option: str, text: str) -> int:
    """Return the milliseconds since 1970 that an option's text means.

    Example:
        >>> time_ms("--until", "1970-01-01T00:00:01Z"), time_ms("--until", "1000")
        (1000, 1000)

    Raises:
        ConfigurationError: If it is neither milliseconds nor RFC 3339 with a zone.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: expected milliseconds or RFC 3339, was {text!r}") from error
    if moment.tzinfo is None:
        raise ConfigurationError(f"{option}: {text!r} has no time zone; write for example {text}Z")
    return int(moment.timestamp() * 1000)


def shown_time(ts: int, precision: str = "seconds") -> str:
    """Return milliseconds since 1970 as a date in UTC, or as they are if there is no such date.

    >>> shown_time(0), shown_time(10**18)
    ('1970-01-01T00:00:00+00:00', '1000000000000000000 ms')
    """
    try:
        return datetime.fromtimestamp(ts / 1000, UTC).isoformat(timespec=precision)
    except (ValueError, OverflowError, OSError):
        return f"{ts} ms"
