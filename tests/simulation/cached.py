"""The same world, with readers that save their window on disk and begin from there, whatever is left of it."""

from __future__ import annotations

import random
from pathlib import Path

from streams.cache.residency import Residency
from streams.cache.row_files import PAGE
from streams.cache.window_cache import WindowCache
from streams.join.source_reader import Position, SourceReader
from streams.window.stored_rows import DamagedRows
from tests.simulation.readers import FALLS_BACK_MS, LEDGER_PARTITIONS, MODELS, Driver, Site

ROWS = 4


class CachedDriver(Driver):
    """Saves its reader now and then ahead of appending, and publishes what was saved with a commit."""

    site: CachedSite

    def __init__(self, site: CachedSite, position: Position) -> None:
        self.chance = site.chance
        self.cache = WindowCache(site.folder, ("predictions", "feedback"), 0, site.config.digest(), 0, Residency(0))
        site.opening = self.cache
        super().__init__(site, position)
        saved = self.cache.saved(position)
        if saved is None:
            return
        try:
            self.reader.resume(saved)
            site.reached["resumed"] += 1
            site.reached["filled_further"] += self.reader.filling
        except DamagedRows:
            site.reached["refused"] += 1
            self.cache.discard()
            self.reader = site.new_reader(position)

    def flush(self, rng: random.Random, *, cut_off: bool) -> None:
        super().flush(rng, cut_off=cut_off)
        if self.sent and not self.reader.filling and not self.reader.moved and self.chance.random() < 0.7:
            self.cache.prepare(self.reader)

    def commit(self) -> None:
        super().commit()
        if not self.reader.filling and not self.reader.moved and self.sent and self.chance.random() < 0.8:
            self.cache.publish(self.site.committed)


class CachedSite(Site):
    """A site with a folder; when a reader dies, some file may be damaged."""

    driver_class = CachedDriver

    def __init__(self, seed: int, folder: Path) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.opening: WindowCache
        super().__init__(seed)

    def new_reader(self, position: Position) -> SourceReader:
        reader = self.reader_class(
            self.config, 0, position, ledger_partitions=LEDGER_PARTITIONS, route=lambda name: MODELS.index(name) % 3,
            secret=self.opening.secret, beyond=self.opening.beyond,
        )  # fmt: skip
        reader.fall_back_ms = FALLS_BACK_MS
        reader._join.window.limit_generations(ROWS)
        return reader

    def step(self) -> None:
        super().step()
        # As long as a reader that is thought dead has the folder, no other one gets it.
        for driver in [driver for driver in self.alive if driver is not self.owner]:
            if self.chance.random() < 0.5:
                self.drop(driver)

    def drop(self, driver: Driver) -> None:
        assert isinstance(driver, CachedDriver)
        driver.cache.close()
        if self.chance.random() < 0.3:
            self.damage()
        super().drop(driver)

    def damage(self) -> None:
        """Replace a file by a damaged one; it is not written to, because a reader that is thought dead may map it."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != "lock")
        if not files:
            return
        path = self.chance.choice(files)
        data = bytearray(path.read_bytes())
        path.unlink()
        kind = self.chance.randrange(3)
        if kind == 0 or not data:
            return
        if kind == 1:
            data = data[: self.chance.randrange(len(data))]
        else:
            # Of a file of rows, mostly in one of the rows.
            data[self.chance.randrange(min(PAGE, len(data) // 2), len(data))] ^= 1
        path.write_bytes(data)
        self.reached["damaged"] += 1
