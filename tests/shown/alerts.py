"""Alerts for tests."""

from __future__ import annotations

from actions.incidents import Alert, Status


def alert(name: str, ts: int, status: Status = "firing") -> Alert:
    return Alert(
        incident=name, status=status, severity="page", model="m", version="v2", reason="BLIND", summary="s",
        decision="d", started_ts=1, ts=ts, action="page",
    )  # fmt: skip
