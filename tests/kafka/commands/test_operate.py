"""The page of operators' acts, command by command, on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleets import Traffic
from tests.kafka.drill import CONFIG, MODELS, drill
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from unship.log.kafka.settings import PREFIX_VARIABLE


def test_page_of_acts_goes_as_described_on_kafka(
    kafka: SharedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX_VARIABLE, kafka.prefix)
    log, trust = f"kafka://{kafka.bootstrap}", tmp_path / "unship-keys" / "trust.json"
    with KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, CONFIG, sources=2, ledger=2) as site:
        site.start()
        with Traffic(log, trust, tmp_path / "replicas", MODELS) as traffic:
            drill(tmp_path, traffic)
