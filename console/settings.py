"""Define the options that every command takes, and the exit codes."""

from __future__ import annotations

import sys
from enum import IntEnum
from pathlib import Path
from typing import Any

import click

from unship.errors import UnshipError


class Exit(IntEnum):
    """Name the exit codes of all commands."""

    GOOD = 0
    FINDING = 1
    USAGE = 2
    UNREACHABLE = 3
    TIMED_OUT = 4
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class StandardOutputRefused(UnshipError):
    """Report that standard output takes nothing more; the cause is the `OSError` that it raised."""


class Settings:
    """Hold the options that every command takes."""

    def __init__(
        self,
        config: Path | None,
        log: str | None,
        as_json: bool,
        quiet: bool,
        color: bool,
        level: str = "warning",
        found: bool = False,
    ) -> None:
        """Take the options.

        Args:
            config: The configuration file; None for the defaults.
            log: The address of the log; None for that of the configuration.
            as_json: Whether data are printed as JSON.
            quiet: Whether standard error stays empty.
            color: Whether colours are allowed; they are used on a terminal only.
            level: The lowest level that is logged.
            found: Whether the configuration file was not named, but found in the present folder.
        """
        self.config = config
        self.log = log
        self.as_json = as_json
        self.quiet = quiet
        self.color = color and sys.stderr.isatty()
        self.level = level
        self.found = found

    def with_options(self, **options: Any) -> Settings:
        """Return these settings with some options given otherwise."""
        known = {"config": self.config, "log": self.log, "as_json": self.as_json, "quiet": self.quiet}
        known |= {"color": self.color, "level": self.level, "found": self.found and "config" not in options}
        return Settings(**(known | options))

    def for_evidence(self) -> Settings:
        """Return these settings without a configuration that was not named.

        What others wrote is often read in the folder that it came in. A file in that folder would otherwise decide
        what is read, and which code is imported.
        """
        if not self.found:
            return self
        return self.with_options(config=None)

    def report(self, text: str) -> None:
        """Print progress or a remark on standard error, unless `quiet`."""
        if not self.quiet:
            click.echo(text, err=True)
