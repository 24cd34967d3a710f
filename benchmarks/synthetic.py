"""Synthetic recordings for benchmarks, and the configurations that they are replayed under.

One model, a live version and a holdback with a tenth of the traffic, slices by two names (6 and 3 values), three label
sources, two losses, and feedback 1 to 16 seconds after 95 % of the predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import tell

from streams.config.parse import parse
from streams.config.resolved import Config

COUNTRIES = ("DE", "FR", "IT", "ES", "PL", "NL")
CHANNELS = ("app", "web", "shop")
SOURCES = ("chargebacks", "reviews", "desk")
START_MS = 1_767_571_200_000
HOLDBACK_SHARE, LABELLED_SHARE, WRONG_SHARE = 0.1, 0.95, 0.1
DELAY_MS = (1_000, 16_000)
CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Case:
    """A source rate in events/s, and how the labels are configured."""

    rate: float
    horizon: str
    early: str
    mature_after: str

    @property
    def config(self) -> Config:
        """The configuration a replay of this case runs under."""
        labels = f"{{horizon: {self.horizon}, early: {self.early}, mature_after: {self.mature_after}}}"
        return parse(
            f"log: embedded:./unship-data\ndefaults: {{labels: {labels}}}\nmodels:\n  fraud:\n"
            "    target: {kind: binary}\n    losses: [zero_one, brier]\n    slices: {by: [country, channel]}\n"
        )


def write_recording(path: Path, events: int, rate: float, seed: int) -> None:
    """Write at least `events` lines, at `rate` predictions and feedback together in each second of source time."""
    rng = np.random.default_rng(seed)
    reference = '"reference":{"zero_one":{"mean":0.1,"n":50000},"brier":{"mean":0.133,"n":50000}}'
    gap = 1_000 * (1 + LABELLED_SHARE) / rate
    with path.open("w") as out:
        for version, rest in (("v41", '"status":"holdback"'), ("v42", f'"status":"live",{reference}')):
            out.write(f'{{"type":"deployment","ts":{START_MS},"model":"fraud","version":"{version}",{rest}}}\n')
        made, written = 0, 2
        waiting: list[tuple[int, str]] = []
        while written < events:
            at = START_MS + ((made + np.arange(CHUNK)) * gap).astype(np.int64)
            # Feedback to predictions of later chunks comes later than this one's last; equal times stay as they are.
            lines = sorted([*waiting, *_lines(rng, made, at)], key=lambda line: line[0])
            ready = sum(line[0] <= at[-1] for line in lines)
            out.writelines([line[1] for line in lines[:ready]])
            waiting, made, written = lines[ready:], made + CHUNK, written + ready
            tell(f"writing a recording at {rate:,}/s: {min(written, events):,} of {events:,} events", end="")
    tell("")


def _lines(rng: np.random.Generator, first: int, at: np.ndarray) -> Iterator[tuple[int, str]]:
    """Yield (time, line) of predictions made at `at` and of the feedback to most of them."""
    size = at.size
    score = rng.integers(1, 1_000, size) / 1_000
    held, labelled, wrong = (rng.random(size) < share for share in (HOLDBACK_SHARE, LABELLED_SHARE, WRONG_SHARE))
    country, channel, source = (rng.integers(0, len(names), size) for names in (COUNTRIES, CHANNELS, SOURCES))
    later = at + rng.integers(*DELAY_MS, size)
    for i, ts in enumerate(at.tolist()):
        output = int(score[i] >= 0.5)
        version = '"v41","role":"holdback"' if held[i] else '"v42","role":"live"'
        yield (
            ts,
            f'{{"type":"prediction","id":"p-{first + i:09d}","ts":{ts},"model":"fraud","version":{version},'
            f'"output":{output},"score":{score[i]},"slices":{{"country":"{COUNTRIES[country[i]]}",'
            f'"channel":"{CHANNELS[channel[i]]}"}},"replica":"r-{i % 8}"}}\n',
        )
        if labelled[i]:
            yield (
                int(later[i]),
                f'{{"type":"feedback","id":"p-{first + i:09d}","ts":{later[i]},"model":"fraud",'
                f'"truth":{output ^ int(wrong[i])},"source":"{SOURCES[source[i]]}"}}\n',
            )
