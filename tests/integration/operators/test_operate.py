"""The page of operators' acts, command by command, on an embedded log with a monitor and fleets."""

from __future__ import annotations

from pathlib import Path

from tests.fleets import Traffic
from tests.kafka.drill import CONFIG, MODELS, drill
from tests.processes import monitor, unship


def test_page_of_acts_goes_as_described_on_an_embedded_log(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    log, trust = f"embedded:{tmp_path / 'unship-data'}", tmp_path / "unship-keys" / "trust.json"
    with monitor(tmp_path), Traffic(log, trust, tmp_path / "replicas", MODELS) as traffic:
        drill(tmp_path, traffic)
