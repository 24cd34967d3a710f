"""Send alerts by Apprise, which knows how to notify by mail, Slack, Teams, PagerDuty and many others.

It is an extra: `pip install 'unship-monitor[notify]'`.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any
from urllib.parse import urlsplit

from actions.adapters.sink import Problem
from actions.incidents import Alert

MISSING = "needs Apprise: pip install 'unship-monitor[notify]'"


class AppriseSink:
    """Notify by one URL of Apprise."""

    repeat_ms: int | None = None

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        """Prepare to notify; the library is imported when it is first needed."""
        self.name = f"apprise {urlsplit(url).scheme}://"
        self._url, self._timeout_s = url, timeout_s
        self._apprise: Any = None

    async def send(self, alert: Alert, now_ms: int) -> Problem | None:
        """Notify of an alert."""
        if self._apprise is None:
            try:
                library = importlib.import_module("apprise")
            except ImportError:
                return Problem(MISSING, refused=True)
            apprise = library.Apprise()
            if not apprise.add(self._url):
                return Problem("its URL is none that Apprise knows", refused=True)
            self._apprise = apprise
        notify = self._apprise.async_notify(title=title(alert), body=text(alert), notify_type=kind(alert))
        try:
            done = await asyncio.wait_for(notify, self._timeout_s)
        except TimeoutError:
            return Problem(f"gave no answer within {self._timeout_s:g} s")
        return None if done else Problem("was not taken; Apprise reports no cause")

    async def close(self) -> None:
        """End nothing: there is nothing open."""


def kind(alert: Alert) -> str:
    """Return Apprise's word for how bad it is."""
    if alert.status == "resolved":
        return "success"
    return "failure" if alert.severity == "page" else "warning"


def title(alert: Alert) -> str:
    """Return the first line of a notification."""
    return f"[{alert.status}] {alert.model} {alert.version}: {alert.reason}"


def text(alert: Alert) -> str:
    """Return a notification for people."""
    act = alert.action if alert.to is None else f"{alert.action} to {alert.to}"
    lines = [alert.summary, f"Decision {alert.decision}: {act}. Incident {alert.incident}."]
    return "\n".join(lines if alert.url is None else [*lines, alert.url])
