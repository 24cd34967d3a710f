"""Run the detectors that the configuration names besides the e-detector rows.

The first configured detector decides. If that is one of these, it watches the overall row of every loss; otherwise they
only give a second opinion, on the overall row of the primary loss, and neither trigger nor veto.
"""

from __future__ import annotations

import msgspec
import numpy as np

import detectors
from detectors.base import Detector, Floats
from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health

E_DETECTOR = "e_detector"


class Opinion(msgspec.Struct):
    """Hold one detector on one stream and its alarms; `last_at` is the time of the newest, -1 if there is none."""

    name: str
    loss: int
    stream: int
    detector: Detector
    alarms: int = 0
    last_at: int = -1


class SavedOpinion(msgspec.Struct):
    """An `Opinion` at rest."""

    name: str
    loss: int
    stream: int
    snapshot: bytes
    alarms: int
    last_at: int


class Opinions:
    """Run the configured detectors of one live period."""

    def __init__(self, names: list[str], losses: int) -> None:
        self.names = names
        self.losses = losses
        self.deciding = names[0] if names[0] != E_DETECTOR else None
        self._opinions: dict[tuple[str, int, int], Opinion] = {}

    def step(self, entries: Entries, health: Health, rules: Rules, now: int) -> None:
        """Let every detector see outcomes in prediction order; the deciding one latches its alarms in `health`.

        Detectors without a promise share no budget of false alarms, so the deciding one watches the overall rows only,
        and its alarm counts only if the rise since the change point matters.
        """
        usable: dict[int, Floats] = {}
        for name in self.names:
            if name == E_DETECTOR:
                continue
            for loss in range(self.losses if name == self.deciding else 1):
                if loss not in usable:
                    column = entries.losses[loss]
                    usable[loss] = column[~np.isnan(column)]
                alarmed = self._feed(name, loss, 0, usable[loss], now)
                if alarmed and name == self.deciding and not health.rows.learning:
                    health.raise_alarm(name, loss, 0, now, 0.0, 0.0, least_rise=rules.worse_by)

    def _feed(self, name: str, loss: int, stream: int, losses: Floats, now: int) -> bool:
        key = (name, loss, stream)
        opinion = self._opinions.get(key)
        if opinion is None:
            opinion = self._opinions[key] = Opinion(name, loss, stream, detectors.create(name))
        alarms = opinion.detector.update_many(losses)
        if alarms.size:
            opinion.alarms += int(alarms.size)
            opinion.last_at = now
        return bool(alarms.size)

    def overall(self) -> list[Opinion]:
        """Return the opinions on the overall row of the primary loss, in the configured order."""
        return [self._opinions[name, 0, 0] for name in self.names if (name, 0, 0) in self._opinions]

    def save(self) -> list[SavedOpinion]:
        """Return everything, to go on bit for bit."""
        return [
            SavedOpinion(o.name, o.loss, o.stream, o.detector.snapshot(), o.alarms, o.last_at)
            for o in self._opinions.values()
        ]

    def load(self, saved: list[SavedOpinion]) -> None:
        """Take over what `save` returned."""
        for o in saved:
            restored = detectors.restore(o.snapshot)
            self._opinions[o.name, o.loss, o.stream] = Opinion(o.name, o.loss, o.stream, restored, o.alarms, o.last_at)
