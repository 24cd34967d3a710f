"""Send alerts to a Prometheus Alertmanager by its API, version 2.

Alertmanager keeps no alert over a restart and ends one that is not sent again before its `endsAt`. So open incidents
are sent again each minute. The end is hours away, because a monitor that restarts, or ends, has resolved nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from actions.adapters.http_client import HttpClient, shown
from actions.adapters.sink import Problem
from actions.incidents import Alert

PATH = "/api/v2/alerts"
REPEAT_MS = 60_000
ENDS_AFTER_MS = 4 * 3_600_000


class AlertmanagerSink:
    """Post each alert; Alertmanager recognises an incident by its labels."""

    repeat_ms: int | None = REPEAT_MS

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        """Prepare to post to the Alertmanager at a URL, without the path of its API."""
        self.name = f"alertmanager {shown(url)}"
        self._client = HttpClient(url.rstrip("/") + PATH, timeout_s)

    async def send(self, alert: Alert, now_ms: int) -> Problem | None:
        """Post an alert."""
        return await self._client.post(msgspec.json.encode([posted(alert, now_ms)]), {})

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def posted(alert: Alert, now_ms: int) -> dict[str, Any]:
    """Return an alert as Alertmanager takes it; what changes during an incident is no label."""
    ends = now_ms + ENDS_AFTER_MS if alert.status == "firing" else max(alert.ts, alert.started_ts)
    # What ends in the future is firing there.
    ends = min(ends, now_ms) if alert.status == "resolved" else ends
    found: dict[str, Any] = {
        "labels": {
            "alertname": "UnshipIncident" if alert.severity == "page" else "UnshipNotice",
            "severity": alert.severity,
            "model": alert.model,
            "version": alert.version,
            "incident": alert.incident,
        },
        "annotations": {
            "summary": alert.summary,
            "reason": alert.reason,
            "action": alert.action if alert.to is None else f"{alert.action} to {alert.to}",
            "decision": alert.decision,
        },
        # One that begins in the future, by another clock, would be refused.
        "startsAt": _time(min(alert.started_ts, ends, now_ms)),
        "endsAt": _time(ends),
    }
    if alert.url is not None:
        found["generatorURL"] = alert.url
    return found


def _time(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1_000, UTC).isoformat(timespec="milliseconds")
