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
#: So many losses may wait for the detectors that decide nothing.
WAITING_MAX = 512


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
        # Losses that the detectors which decide nothing have not seen, and when they were judged.
        self._waiting: list[tuple[Floats, int]] = []
        self._waiting_losses = 0

    def step(self, entries: Entries, health: Health, rules: Rules, now: int) -> None:
        """Let every detector see outcomes in prediction order; the deciding one latches its alarms in `health`.

        The others are asked only when something is decided, and many outcomes cost them little more than one.
        Detectors without a promise share no budget of false alarms, so the deciding one watches the overall rows only,
        and its alarm counts only if the rise since the change point matters.
        """
        if self.deciding is not None:
            for loss in range(self.losses):
                if self._feed(self.deciding, loss, [(entries.losses[loss], now)]) and not health.rows.learning:
                    health.raise_alarm(self.deciding, loss, 0, now, 0.0, 0.0, least_rise=rules.worse_by)
        if self._others:
            self._waiting.append((entries.losses[0], now))
            self._waiting_losses += entries.source.size
            if self._waiting_losses >= WAITING_MAX:
                self._settle()

    @property
    def _others(self) -> list[str]:
        return [name for name in self.names if name not in (E_DETECTOR, self.deciding)]

    def _settle(self) -> None:
        waiting, self._waiting, self._waiting_losses = self._waiting, [], 0
        for name in self._others if waiting else ():
            self._feed(name, 0, waiting)

    def _feed(self, name: str, loss: int, judged: list[tuple[Floats, int]]) -> bool:
        """Let a detector see losses, NaN where there is none, with the times at which they were judged."""
        key = (name, loss, 0)
        opinion = self._opinions.get(key)
        if opinion is None:
            opinion = self._opinions[key] = Opinion(name, loss, 0, detectors.create(name))
        usable = [column[~np.isnan(column)] for column, _ in judged]
        alarms = opinion.detector.update_many(np.concatenate(usable))
        if alarms.size:
            opinion.alarms += int(alarms.size)
            ends = np.cumsum([column.size for column in usable])
            opinion.last_at = judged[int(np.searchsorted(ends, alarms[-1], side="right"))][1]
        return bool(alarms.size)

    def overall(self) -> list[Opinion]:
        """Return the opinions on the overall row of the primary loss, in the configured order."""
        self._settle()
        return [self._opinions[name, 0, 0] for name in self.names if (name, 0, 0) in self._opinions]

    def save(self) -> list[SavedOpinion]:
        """Return everything, to go on bit for bit."""
        self._settle()
        return [
            SavedOpinion(o.name, o.loss, o.stream, o.detector.snapshot(), o.alarms, o.last_at)
            for o in self._opinions.values()
        ]

    def load(self, saved: list[SavedOpinion]) -> None:
        """Take over what `save` returned."""
        for o in saved:
            restored = detectors.restore(o.snapshot)
            self._opinions[o.name, o.loss, o.stream] = Opinion(o.name, o.loss, o.stream, restored, o.alarms, o.last_at)
