"""Send alerts to what the configuration names, in a thread of their own with a loop of its own; and try that out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from actions.incidents import Alert, incident_id
from console.loops import LoopThread
from console.sentences import clean
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import AlertSink
from unship.errors import ConfigurationError
from unship.log.link import wall_ms

if TYPE_CHECKING:
    from actions.adapters.sink import Sink
    from streams.alerts.follower import AlertTopic, Follower

MODEL, VERSION = "unship-test", "v0"
"""What a test alert names."""

CLOSING_S = 1.0
"""How long the end of a monitor waits for alerts that are under way; the others are sent after the next start."""


def sink_id(given: AlertSink) -> str:
    """Return what a sink's position is stored under: the same as long as it goes to the same place."""
    digest = hashlib.sha256("\x00".join([given.kind, *given.target]).encode()).hexdigest()
    return f"{given.kind}-{digest[:10]}"


def make_sink(given: AlertSink, settings: Settings) -> Sink:
    """Return the sink of an entry of `alerts`; commands run in the folder of the configuration file."""
    timeout_s = given.timeout_ms / 1_000
    if given.kind == "command":
        from actions.adapters.command_sink import CommandSink

        folder = settings.config.parent if settings.config is not None else Path()
        return CommandSink(given.target, folder, timeout_s, given.environment)
    (url,) = given.target
    if given.kind == "webhook":
        from actions.adapters.webhook_sink import WebhookSink

        return WebhookSink(url, given.secret, timeout_s)
    if given.kind == "alertmanager":
        from actions.adapters.alertmanager_sink import AlertmanagerSink

        return AlertmanagerSink(url, timeout_s)
    from actions.adapters.apprise_sink import AppriseSink

    return AppriseSink(url, timeout_s)


class Alerts:
    """Run a follower for each sink of a monitor that runs."""

    def __init__(self, sinks: Sequence[AlertSink], settings: Settings, open_topic: Callable[[str], AlertTopic]) -> None:
        """Start the thread, if there are sinks.

        Args:
            sinks: Those of the configuration.
            settings: The global options, which take the reports.
            open_topic: Returns the topic `alerts` for the sink of an id.
        """
        self._sinks, self._settings, self._open_topic = sinks, settings, open_topic
        self._thread = LoopThread("unship-alerts", self._run) if sinks else None

    async def _run(self, stop: asyncio.Event) -> None:
        from streams.alerts.follower import Follower

        followers = [
            Follower(self._open_topic(sink_id(each)), make_sink(each, self._settings), self._report, wall_ms)
            for each in self._sinks
        ]
        tasks = [asyncio.create_task(self._follow(each)) for each in followers]
        await stop.wait()
        for follower in followers:
            follower.stop()
        _, late = await asyncio.wait(tasks, timeout=CLOSING_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, follower: Follower) -> None:
        try:
            await follower.run()
        except Exception as error:  # noqa: BLE001 - no alert may end the monitor, nor the other sinks
            self._report(f"alerts end, because of a fault of this program: {type(error).__name__}: {error}")

    def _report(self, text: str) -> None:
        self._settings.report(f"run: {clean(text)}")

    def close(self) -> None:
        """Finish what is under way for a moment, and end."""
        if self._thread is not None:
            self._thread.close(3 * CLOSING_S)


# `unship alerts test`


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a test alert at one sink."""

    sink: str
    sent: bool
    why: str | None = None


def alerts_test_command(settings: Settings) -> Exit:
    """Send a firing and a resolved test alert to every sink; FINDING if one did not take both.

    Raises:
        ConfigurationError: There is no sink.
    """
    sinks = load(settings.config).alerts
    if not sinks:
        raise ConfigurationError("alerts: no sink is configured; write for example alerts: [{command: ['./page.sh']}]")
    tried = asyncio.run(_try(sinks, settings))
    if settings.as_json:
        click.echo(msgspec.json.encode({"sinks": tried}).decode())
    else:
        for number, each in enumerate(tried):
            found = "took the test alert" if each.sent else f"did not take the test alert: {each.why}"
            click.echo(clean(f"alerts[{number}] {each.sink}: {found}"))
    return Exit.GOOD if all(each.sent for each in tried) else Exit.FINDING


def alerts_to_try(now_ms: int) -> tuple[Alert, Alert]:
    """Return a test alert that fires, and the one that resolves it."""
    firing = Alert(
        incident=incident_id(MODEL, VERSION),
        status="firing",
        severity="notice",
        model=MODEL,
        version=VERSION,
        reason="TEST",
        summary="This is a test of unship's alerts; nothing has to be done.",
        decision="",
        started_ts=now_ms,
        ts=now_ms,
        action="none",
    )
    return firing, msgspec.structs.replace(firing, status="resolved", summary="The test is over.", ts=now_ms + 1)


async def _try(sinks: list[AlertSink], settings: Settings) -> list[Tried]:
    return await asyncio.gather(*(_tried(each, settings) for each in sinks))


async def _tried(given: AlertSink, settings: Settings) -> Tried:
    sink = make_sink(given, settings)
    try:
        for alert in alerts_to_try(wall_ms()):
            problem = await sink.send(alert, wall_ms())
            if problem is not None:
                return Tried(sink.name, False, problem.why)
    finally:
        await sink.close()
    return Tried(sink.name, True)
