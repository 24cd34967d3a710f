"""Read the address of a log, and connect to the kind of log it names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from unship.errors import ConfigurationError
from unship.log.kafka.access import SCHEME
from unship.log.link import Link

EMBEDDED: Final = "embedded:"


STATE_FOLDER: Final = Path("unship-state")
"""Where replicas on Kafka keep their highest epoch by default: a folder of the current one."""


def checked_log(log: str | None) -> str:
    """Return the address of a log if it is one, before any thread needs it.

    Raises:
        ConfigurationError: None was given; it is none; the environment's settings for the broker are wrong.
    """
    if log is None:
        raise ConfigurationError("log: none was given; pass log='embedded:DIR' or kafka://HOST:PORT, or set UNSHIP_LOG")
    if log.startswith(SCHEME):
        from unship.log.kafka.settings import client_options, topic_names

        client_options(log)
        topic_names()
    elif not log.startswith(EMBEDDED) or len(log) == len(EMBEDDED):
        raise ConfigurationError(f"log: expected embedded:DIR or kafka://HOST:PORT, was '{log}'; name one of them")
    return log


def connector(log: str, now_ms: Callable[[], int] | None = None, *, pack: bool = False) -> Callable[[], Link]:
    """Return what links a thread with the log of a checked address.

    `now_ms` is the clock of append times in an embedded log, the machine's if None; on Kafka the broker has its own.
    With `pack`, predictions and feedback that are appended together share records (`unship.log.packed`).

    The modules of that kind of log are imported here, by the caller: an import that runs on another thread while this
    process forks would never end in the child.
    """
    if log.startswith(SCHEME):
        from unship.log.kafka.link import KafkaLink

        return partial(KafkaLink, log, pack=pack)
    from unship.log.embedded.link import EmbeddedLink

    return partial(EmbeddedLink, _folder(log), now_ms=now_ms, pack=pack)


def state_folder(log: str) -> Path:
    """Return where replicas keep their highest epoch by default: in an embedded log's folder, else `STATE_FOLDER`."""
    return STATE_FOLDER if log.startswith(SCHEME) else _folder(log) / "replicas"


def _folder(log: str) -> Path:
    return Path(log[len(EMBEDDED) :])
