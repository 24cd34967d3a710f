"""Send alerts to what the configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actions.adapters.command_sink import CommandSink
from actions.alerts import alert_of
from console.sentences import clean
from console.settings import Settings
from streams.config.resolved import AlertCommand

CLOSING_S = 1.0
"""How long the end of a monitor waits for alerts."""


class Alerts:
    """Hold the sinks of a monitor that runs."""

    def __init__(self, commands: Sequence[AlertCommand], settings: Settings) -> None:
        """Start the sinks; commands run in the folder of the configuration file."""
        folder = settings.config.parent if settings.config is not None else Path()
        self._sinks = [
            CommandSink(
                each.arguments,
                folder,
                lambda text: settings.report(f"run: {clean(text)}"),
                each.timeout_ms / 1_000,
                each.environment,
            )
            for each in commands
        ]

    def put(self, value: bytes | None) -> None:
        """Queue the alert for a record of the journal, if there is one; never waits."""
        alert = alert_of(value) if self._sinks else None
        if alert is not None:
            for sink in self._sinks:
                sink.put(alert)

    def close(self) -> None:
        """Send what waits for a moment, and end."""
        for sink in self._sinks:
            sink.close(CLOSING_S)
