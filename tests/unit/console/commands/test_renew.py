"""Which incarnation `unship ctl renew` begins: not one that a stranger invents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from console.cli import main
from streams.config.parse import parse
from tests.sites import Site
from unship.keys import new_keys
from unship.log.embedded.log import Message

CONFIG = "log: embedded:./log\nkeys: ./keys\nmodels: {fraud: {policy: {mode: act}}}\n"


@pytest.mark.parametrize(
    ("claims", "code", "found"),
    [
        ([], 0, '"incarnation":1'),
        ([2**53, 2**53], 0, '"incarnation":1'),
        ([7, 0, 0], 0, '"incarnation":1'),
        ([7, 7, 0], 2, "--incarnation 8"),
    ],
    ids=["none", "impossible", "of one among three", "of most"],
)
def test_claims_of_replicas_count_where_most_make_them_and_an_operator_may_have_ordered_so_many(
    claims: list[int], code: int, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unship.yaml").write_text(CONFIG)
    new_keys(tmp_path / "keys", "prod")
    site = Site(tmp_path / "log", [], parse(CONFIG))
    site.clock.now = 1_772_409_600_000
    deployment = {"model": "fraud", "version": "v1", "status": "live"}
    site.log.append("deployments", [Message(json.dumps(deployment).encode(), b"fraud")])
    for number, incarnation in enumerate(claims):
        ack = {"model": "fraud", "replica": f"r-{number}", "boot": "b", "stage": "serving", "serving": "v1"}
        value = json.dumps({**ack, "epoch": [incarnation, 0, 0]}).encode()
        site.log.append("acks", [Message(value, b"fraud/r-%d" % number)])
    monitor = site.monitor()
    monitor.step()
    monitor.log.close()
    assert monitor.conflicts() == []
    result = CliRunner().invoke(main, ["--json", "ctl", "renew", "fraud", "--reason", "the disk is gone"])
    assert (result.exit_code, found in result.output) == (code, True), result.output
