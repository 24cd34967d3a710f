"""A monitor of a log with packed records decides what that of one with plain records decides."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.audit.ledger_audit import audit_topics
from streams.config.parse import parse
from streams.embedded.topics import EmbeddedTopics
from tests.packing import appended_at, gathered
from tests.sites import Memory, Site, taken_of
from tests.worlds.busy import CONFIG, busy_lines, untidy_lines
from unship.log.embedded.log import EmbeddedLimits, EmbeddedLogError, Message
from unship.log.packed import pack_values

MATURE = CONFIG.replace("defaults: {", "defaults: {labels: {mature_after: 1s, horizon: 4s}, ")


def lived_through(folder: Path, lines: list[bytes], config: str, *, pack: bool) -> Site:
    """Let a monitor live through traffic, in rounds, with a restart from a snapshot and one without."""
    site = Site(folder, [], parse(config))
    live = site.monitor()
    for number, (topic, values) in enumerate(gathered(lines)):
        site.clock.now = appended_at(values, site.clock.now)
        packs = pack and topic != "deployments"
        for value, _ in pack_values(values) if packs else ((value, 1) for value in values):
            site.log.append(topic, [Message(value)])
        if number % 5 == 4:
            live.step()
        if number % 40 == 39:
            live.save_snapshot()
        if number % 60 == 59:
            live = site.monitor()
    live.step()
    return site


def decided(site: Site) -> list[list[str | None]]:
    """Return what was decided; when, and on which figures, depends on the places of predictions."""
    found = [msgspec.json.decode(line) for line in site.journal()]
    return [[each[name] for name in ("model", "version", "verdict", "reason", "action", "to")] for each in found]


@pytest.mark.parametrize("config", [CONFIG, MATURE], ids=["at once", "mature"])
@pytest.mark.parametrize("lines", [busy_lines(1), untidy_lines(2)], ids=["busy", "untidy"])
def test_packed_records_lead_to_the_decisions_and_counts_of_plain_ones(
    tmp_path: Path, lines: list[bytes], config: str
) -> None:
    packed, plain = (lived_through(tmp_path / str(pack), lines, config, pack=pack) for pack in (True, False))
    assert packed.log.end("predictions") < plain.log.end("predictions") / 5
    assert decided(packed) == decided(plain)
    assert decided(packed)
    statuses = [site.monitor().status() for site in (packed, plain)]
    assert statuses[0].rejected == statuses[1].rejected
    for site in (packed, plain):
        result = audit_topics(EmbeddedTopics(site.log), None)
        assert (result.first_difference, result.reproduced) == (None, len(site.journal()))


def test_audit_of_a_log_finds_a_changed_event_of_a_packed_record(tmp_path: Path) -> None:
    site = lived_through(tmp_path / "log", busy_lines(1), CONFIG, pack=True)
    taken = taken_of(site.log)
    place = next(
        i for i, it in enumerate(taken) if it.topic == "feedback" and (it.value or b"").startswith(b"[") and i > 200
    )
    value = taken[place].value or b""
    head, found, tail = value.rpartition(b'"truth":1')
    assert found
    taken[place] = msgspec.structs.replace(taken[place], value=head + b'"truth":0' + tail)
    difference = audit_topics(Memory(taken), None).first_difference
    assert difference is not None
    assert f"feedback@{taken[place].offset}[" in difference.sentence()


def test_each_bad_event_of_a_packed_record_is_a_dead_letter_and_the_good_ones_count(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse(CONFIG))
    good = b'{"id":"p%d","model":"m","version":"v1","output":1}'
    site.log.append("predictions", [Message(b"[%b,7,%b,{}]" % (good % 0, good % 1), b"p0"), Message(b"[", b"x")])
    site.log.append("feedback", [Message(b'[{"id":"p0","truth":1},{"id":"p1","truth":1}]', b"p0")])
    live = site.monitor()
    live.step()
    assert live.status().rejected == {"BAD_EVENT": 2, "BAD_JSON": 1}
    dead = [msgspec.json.decode(record.value or b"") for record in site.log.read("rejected", 0)]
    assert [(letter["offset"], letter.get("index"), letter["code"]) for letter in dead] == [
        (0, 1, "BAD_EVENT"),
        (0, 3, "BAD_EVENT"),
        (1, None, "BAD_JSON"),
    ]
    assert dead[0]["digest"] == hashlib.sha256(b"7").hexdigest()
    assert live.status().models["m"].outcomes == {"v1": 2}


def test_round_that_is_too_large_for_a_transaction_is_appended_in_several(tmp_path: Path) -> None:
    site = Site(tmp_path / "log", [], parse(CONFIG))
    site.log.limits = EmbeddedLimits(batch_records=100)
    live = site.monitor()
    bad = b"[" + b",".join([b"{}"] * 64) + b"]"
    site.log.append("predictions", [Message(bad)] * 10)
    site.log.append("feedback", [Message(bad)] * 10)
    live.step()
    for monitor in (live, site.monitor()):
        assert monitor.status().rejected == {"BAD_EVENT": 20 * 64}
    assert site.log.end("rejected") == 20 * 64


def test_monitor_that_appends_rounds_in_several_transactions_decides_the_same(tmp_path: Path) -> None:
    lines = busy_lines(1)
    sites = [Site(tmp_path / name, lines, parse(CONFIG)) for name in ("whole", "parts")]
    # A ledger record, its decision and its alert belong together.
    sites[1].log.limits = EmbeddedLimits(batch_records=3)
    for site in sites:
        live = site.monitor()
        site.log.limits, limits = EmbeddedLimits(), site.log.limits
        site.send(len(lines))
        site.log.limits = limits
        live.step()
    assert sites[0].journal() == sites[1].journal()
    assert sites[0].ledger() == sites[1].ledger()
    assert len(sites[0].journal()) > 2


@pytest.mark.parametrize("kept", [1, 3, 8])
def test_monitor_that_ends_between_two_transactions_of_a_round_counts_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    lines = busy_lines(1)
    sites = [Site(tmp_path / name, lines, parse(CONFIG)) for name in ("whole", "parts")]
    whole, live = sites[0].monitor(), sites[1].monitor()
    for site in sites:
        site.send(len(lines))
    whole.step()
    log = sites[1].log
    log.limits = EmbeddedLimits(batch_records=3)
    append, left = log.append_many, [kept]

    def append_some(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise EmbeddedLogError("ended")
        return append(*args, **options)

    monkeypatch.setattr(log, "append_many", append_some)
    with pytest.raises(EmbeddedLogError):
        live.step()
    monkeypatch.undo()
    log.limits = EmbeddedLimits()
    live = sites[1].monitor()
    live.step()
    found, expected = live.pipeline.fold, whole.pipeline.fold
    assert {name: model.state.outcomes for name, model in found.models.items()} == {
        name: model.state.outcomes for name, model in expected.models.items()
    }
    assert found.counts() == expected.counts()
    decided = [
        [(each["reason"], each["action"]) for each in map(msgspec.json.decode, site.journal())] for site in sites
    ]
    assert decided[0] == decided[1]
