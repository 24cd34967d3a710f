"""Fleets that follow the log of a test, what they acknowledged, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.waiting import HANG_S, until
from unship import Feedback, Fleet
from unship.events import Role
from unship.replica.fence import Serving
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


class Traffic:
    """Replicas of several models that follow a log of either kind, and a source of truths for what they answer."""

    def __init__(self, log: str, trust: Path, state: Path, models: tuple[str, ...], replicas: int = 2) -> None:
        self.fleets = {
            model: [
                Fleet(model, "v1", on_version=str, log=log, trust=trust, state=state, replica=f"r-{number}")
                for number in range(replicas)
            ]
            for model in models
        }
        self._labels = Feedback(log=log)
        self._count = 0

    def __enter__(self) -> Traffic:
        """Start all replicas."""
        for fleet in self.all():
            fleet.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End all replicas."""
        for fleet in self.all():
            fleet.close(HANG_S)
        self._labels.close(HANG_S)

    def all(self) -> list[Fleet]:
        """Return the replicas of all models."""
        return [fleet for fleets in self.fleets.values() for fleet in fleets]

    def serve(self, model: str, version: str) -> None:
        """Wait until every replica of a model serves a version."""
        fleets = self.fleets[model]
        until(lambda: all(fleet.current.version == version for fleet in fleets), lambda: f"{fleets[0].stats}")

    def answer(self, model: str, count: int, wrong: float, holdback: str | None = None) -> None:
        """Let the replicas answer so many requests, a share of them wrong, and report the truths.

        With a holdback, one request in three is answered by that version, and one in twenty of these wrong.
        """
        told = []
        for number in range(count):
            fleet = self.fleets[model][number % len(self.fleets[model])]
            role: Role = "live"
            by, share = fleet.current, wrong
            if holdback is not None and number % 3 == 0:
                role, by, share = "holdback", Serving(holdback), 0.05
            self._count += 1
            name = f"{model}-{self._count}"
            fleet.predicted(1, id=name, role=role, as_=by)
            # Evenly spread, so that no chance decides.
            told.append((name, int(number * share) == int((number + 1) * share)))
        for fleet in self.fleets[model]:
            assert fleet.flush(HANG_S), fleet.stats
        for name, right in told:
            self._labels.truth(name, int(right))
        assert self._labels.flush(HANG_S)
