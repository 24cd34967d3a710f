"""Readers that begin from a window on disk apply the same outcomes and counts as those that read the log again."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from tests.effort import some_of
from tests.simulation.cached import CachedSite
from tests.simulation.readers import verdict_of

SEEDS = int(os.environ.get("UNSHIP_SIMULATION_SEEDS", some_of(100)))


def test_nothing_is_lost_or_doubled_by_windows_on_disk_whatever_is_left_of_them(tmp_path: Path) -> None:
    reached: Counter[str] = Counter()
    for seed in range(SEEDS):
        site = CachedSite(seed, tmp_path / str(seed))
        site.run()
        verdict = verdict_of(site)
        assert verdict.clean, (seed, verdict)
        reached += site.reached
    for path in ("resumed", "filled_further", "damaged", "refused", "restart", "overlap"):
        assert reached[path] > 0, (path, reached)
