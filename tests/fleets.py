"""Fleets that follow the embedded log of a test, and what they acknowledged."""

from __future__ import annotations

from typing import Any

from tests.waiting import until
from unship import Fleet
from unship.testing import UnshipEmbedded


def following(bench: UnshipEmbedded, version: str = "v42", **settings: Any) -> Any:
    return Fleet("fraud", version, log=bench.log, trust=bench.trust, **{"replica": "r-1", **settings})


def stages(bench, *, replica="r-1"):
    """Return what a replica acknowledged, but for the end of its processes."""
    acks = [ack for ack in bench.events("acks") if ack.replica == replica and ack.stage != "left"]
    return [(ack.stage, ack.epoch, ack.serving, ack.code) for ack in acks]


def refusal(bench, fleet, code):
    """Wait until a refusal was acknowledged, and return what was served meanwhile."""
    bench.until("acks", lambda acks: any(ack.code == code for ack in acks))
    assert fleet.stats.refused[code] >= 1
    return fleet.current.version


def assert_becomes(fleet, health):
    """Wait until the fleet sees its control topic in this state."""
    until(lambda: fleet.control_health == health, lambda: f"{fleet.control_health}: {fleet.stats}")
