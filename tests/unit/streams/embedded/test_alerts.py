"""The topic `alerts` of an embedded log: one record for each change of an incident, whatever was restarted."""

from __future__ import annotations

from pathlib import Path

import pytest

from actions.incidents import Alert, read_alert
from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.ledger.entries import read_entry
from tests.sites import Site, play
from tests.worlds.busy import CONFIG, busy_lines
from unship.codec import encode_line
from unship.commands import Command
from unship.events import Ack
from unship.log.embedded.log import EmbeddedLog, Message


def alerts_of(log: EmbeddedLog) -> list[Alert]:
    records = log.read("alerts", 0)
    found = [read_alert(record.value) for record in records]
    assert [record.key for record in records] == [each.incident.encode() for each in found if each is not None]
    return [each for each in found if each is not None]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_alerts_of_a_monitor_that_is_restarted_are_those_that_its_ledger_leads_to(tmp_path: Path, seed: int) -> None:
    played = play(tmp_path, seed)
    with played.log as log:
        found = alerts_of(log)
        fold, expected = Fold(parse(CONFIG)), []
        for record in log.read("ledger", 0, limit=100_000, max_bytes=1 << 30):
            fold.step(read_entry(record.value or b""))
            expected += fold.alerts
    assert found == expected
    assert found
    assert len({(each.incident, each.ts) for each in found}) == len(found)


def test_rollback_is_firing_until_the_last_replica_obeys_it(tmp_path: Path) -> None:
    site = Site(tmp_path, busy_lines(1), parse(CONFIG))
    with site.log:
        monitor = site.monitor()
        commands = list[Command]()
        while not any(command.action == "rollback" for command in commands):
            site.send(200)
            monitor.step()
            commands += monitor.publish()
        (rollback,) = [command for command in commands if command.action == "rollback"]
        before = alerts_of(site.log)
        assert [(each.status, each.version, each.to) for each in before][-1] == ("firing", "v2", rollback.serve)
        for replica in ("r0", "r1", "r2"):
            assert alerts_of(site.log) == before
            site.clock.now += 1_000
            ack = Ack(
                model="m", replica=replica, boot="b", epoch=rollback.epoch, stage="serving", serving=rollback.serve
            )
            site.log.append("acks", [Message(encode_line(ack), b"m/" + replica.encode())])
            monitor.step()
        resolved = alerts_of(site.log)[len(before) :]
    assert [(each.incident, each.status) for each in resolved] == [(before[-1].incident, "resolved")]
    assert resolved[0].summary == "v1 serves now: all 3 living replicas obey."


def test_alert_links_to_its_decision_where_the_configuration_names_an_address(tmp_path: Path) -> None:
    config = parse(CONFIG + "\nweb: {listen: '127.0.0.1:8700'}")
    site = Site(tmp_path, busy_lines(1, 300), config)
    with site.log:
        monitor = site.monitor()
        site.send(300)
        site.log.append("deployments", [Message(b'{"model":"m","version":"v9","status":"live"}', b"m")])
        monitor.step()
        (alert,) = alerts_of(site.log)
    assert (alert.reason, alert.severity) == ("UNSIGNED_DEPLOYMENT", "notice")
    assert alert.url == f"http://127.0.0.1:8700/v1/decisions?id={alert.decision}"
