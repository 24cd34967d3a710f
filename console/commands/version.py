"""Run `unship version`: print what may explain a difference between two machines."""

from __future__ import annotations

import platform
from importlib.metadata import version

import msgspec

from streams.config.resolved import FOLD_VERSION

LIBRARIES = ("numpy", "river", "msgspec")


def version_text(as_json: bool) -> str:
    """Return the versions as one line for people, or as JSON."""
    facts = {"unship-monitor": version("unship-monitor"), "unship": version("unship"), "fold": str(FOLD_VERSION)}
    facts |= {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    if as_json:
        return msgspec.json.encode(facts).decode()
    monitor = facts.pop("unship-monitor")
    return f"unship-monitor {monitor} ({', '.join(f'{name} {value}' for name, value in facts.items())})"
