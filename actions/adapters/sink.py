"""Define what a sink of alerts is: it sends one alert to people, or to a system of theirs."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from actions.incidents import Alert


class Problem(NamedTuple):
    """Why an alert was not sent; `refused` if the sink answered, and would answer the same again."""

    why: str
    refused: bool = False


class Sink(Protocol):
    """Sends alerts, one at a time; every call ends in bounded time."""

    @property
    def name(self) -> str:
        """Return what it is called in reports, without anything secret."""

    @property
    def repeat_ms(self) -> int | None:
        """Return after how many ms an open incident is to be sent again; None where once is enough."""

    async def send(self, alert: Alert, now_ms: int) -> Problem | None:
        """Send an alert at a time of the wall clock; return why it was not sent."""

    async def close(self) -> None:
        """End what is under way."""
