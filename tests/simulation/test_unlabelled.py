"""Predictions that are judged without a label reach the fold once each, and so do their pairs, whatever readers do."""

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from streams.config.resolved import Config
from streams.evaluation.outcomes import Outcomes
from streams.ledger.entries import entry_of
from streams.pipeline import configuration_record
from tests.effort import some_of
from tests.simulation.readers import LEDGER_PARTITIONS, SeeingFold, SeenModel, Site, World, verdict_of

SEEDS = some_of(100)


class Rows(SeenModel):
    """Notes the unlabelled rows, and the pairs among them by their live prediction."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.rows: Counter[int] = Counter()
        self.pairs: Counter[int] = Counter()

    def take_outcomes(self, record: Outcomes) -> None:
        super().take_outcomes(record)
        if record.unlabelled is not None:
            self.rows.update(record.unlabelled.position.tolist())
            if record.unlabelled.pairs is not None:
                self.pairs.update(record.unlabelled.pairs.position.tolist())


class RowsFold(SeeingFold):
    def _model(self, name: str) -> Any:
        return self.models.setdefault(name, Rows(name))  # type: ignore[arg-type]


class TimedWorld(World):
    """The version v2 is a shadow, and every answer says how long it took."""

    def _prediction(self, rng: random.Random, id: str) -> dict[str, Any]:
        event = super()._prediction(rng, id)
        return event | {"role": "shadow" if event["version"] == "v2" else "live", "latency_ms": rng.choice([1, 9])}

    def config(self) -> Config:
        labels = f"labels: {{horizon: {self.horizon}ms, early: {self.early}ms}}"
        return parse(f"defaults: {{losses: [zero_one, {{latency: {{objective_ms: 5}}}}], {labels}}}")

    def expected_rows(self) -> tuple[set[int], Counter[int]]:
        """Return the places of all first predictions, and of the live ones of all pairs."""
        reach = self.horizon + self.early
        rows, pairs = set(), Counter[int]()
        before: list[tuple[int, dict[str, Any], int]] = []
        for mine in self.kept_predictions():
            near = [p for p in before if mine[2] - p[2] <= reach]
            before.append(mine)
            near = [p for p in near if (p[1]["model"], p[1]["id"]) == (mine[1]["model"], mine[1]["id"])]
            if any(p[1]["version"] == mine[1]["version"] for p in near):
                continue
            rows.add(mine[0])
            if near:
                pairs[mine[0] if mine[1]["role"] == "live" else near[0][0]] += 1
        return rows, pairs


class TimedSite(Site):
    world: TimedWorld

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.world = TimedWorld(self.rng)
        self.config = self.world.config()
        self.folds = [RowsFold(self.config) for _ in range(LEDGER_PARTITIONS)]
        record = msgspec.structs.replace(configuration_record(self.config), ledger_partitions=LEDGER_PARTITIONS)
        for fold in self.folds:
            fold.step(entry_of(record))
            fold.coverage[0] = self.coverage_class()
        self.owner = self.driver_class(self, self.committed)
        self.alive = [self.owner]


@pytest.mark.parametrize("part", range(2))
def test_each_prediction_and_each_pair_is_applied_once(part: int) -> None:
    reached, paired = Counter[str](), 0
    for seed in range(part, SEEDS, 2):
        site = TimedSite(seed)
        site.run()
        assert verdict_of(site).clean, seed
        models: list[Any] = [model for fold in site.folds for model in fold.models.values()]
        rows, pairs = site.world.expected_rows()
        assert sum((model.rows for model in models), Counter()) == dict.fromkeys(rows, 1), seed
        assert sum((model.pairs for model in models), Counter()) == pairs, seed
        reached += site.reached
        paired += pairs.total()
    for path in ("overlap", "zombie_commit", "restart", "batch_lost"):
        assert reached[path] > 0, (path, reached)
    assert paired > SEEDS / 2
