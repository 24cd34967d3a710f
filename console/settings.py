"""The options that every command takes, and the exit codes."""

import sys
from pathlib import Path

import click

GOOD, FINDING, USAGE, UNREACHABLE, TIMED_OUT = 0, 1, 2, 3, 4


class Settings:
    """The global options."""

    def __init__(
        self, config: Path | None, log: str | None, as_json: bool, quiet: bool, color: bool, level: str = "warning"
    ) -> None:
        self.level = level
        self.config = config
        self.log = log
        self.as_json = as_json
        self.quiet = quiet
        self.color = color and sys.stderr.isatty()

    def tell(self, text: str) -> None:
        """Say something on stderr, unless told to be quiet."""
        if not self.quiet:
            click.echo(text, err=True)
