"""State every limit with the value that is in force."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from streams.config.resolved import Config
from unship.budgets.table import BUDGETS, MODELS, RECORDING, REPLICAS, VERSIONS, WINDOW


class Limit(msgspec.Struct, frozen=True):
    """State one row of the table of budgets: `set_by` is the key of `unship.yaml`, None where it is fixed."""

    what: str
    limit: int
    unit: str
    bytes: int | None
    beyond: str
    back: str
    set_by: str | None


def limits_of(config: Config) -> Iterator[Limit]:
    """Yield the rows of the table of budgets under a configuration."""
    given = {
        MODELS: config.places.models,
        VERSIONS: config.places.versions,
        REPLICAS: config.places.replicas,
        WINDOW: config.window_bytes,
        RECORDING: config.recording_bytes,
    }
    assert [each for each in BUDGETS if each.key is not None] == [each for each in BUDGETS if each in given]
    for each in BUDGETS:
        value = given.get(each, each.limit)
        size = None if each.bytes is None else round(each.bytes * value / each.limit)
        key = None if each.key is None else f"limits.{each.key}"
        yield Limit(each.what, value, each.unit, size, each.beyond, each.back, key)


def limit_text(limit: Limit) -> str:
    """Return a row as one line.

    >>> limit_text(Limit("an event", 65_536, "bytes", 65_536, "TOO_LARGE", "at once", None))
    'limit    an event: 65,536 bytes; beyond it TOO_LARGE'
    """
    key = "" if limit.set_by is None else f" ({limit.set_by})"
    return f"limit    {limit.what}: {limit.limit:,} {limit.unit}{key}; beyond it {limit.beyond}"
