"""The status in the log: one bounded record for each model, written only where something changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from actions.replicas import Replica, Shown
from console.cli import main
from streams.config.parse import parse
from streams.config.units import DAY_MS
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.status import ModelStatus, Seen, Status
from streams.fold.status_records import BYTES_MAX, STATUS_MS, HeadRecord, ModelRecord, encode_model, merged
from tests.sites import Site
from unship.log.embedded.log import EmbeddedLog, Message, Record

START = 1_772_409_600_000
NAMED = "models: {fraud: {}}\n"


def predictions(count: int, first: int = 0, model: str = "fraud", **fields: Any) -> list[Message]:
    events = (
        {"id": f"{model}-{first + number}", "model": model, "version": "v1", "output": 1, **fields}
        for number in range(count)
    )
    return [Message(json.dumps(event).encode(), b"k") for event in events]


def names(count: int, **fields: Any) -> list[Message]:
    """Return one prediction each of as many replicas."""
    return [predictions(1, number, replica=f"r-{number}-" + "x" * 100, **fields)[0] for number in range(count)]


class Rounds:
    """An embedded monitor of which each round is a second, with what it writes of its status."""

    def __init__(self, folder: Path, text: str = NAMED) -> None:
        self.site = Site(folder, [], parse(text))
        self.site.clock.now = START
        self.monitor: EmbeddedMonitor = self.site.monitor()

    def round(self, messages: list[Message], wait_ms: int = 1_000) -> list[Record]:
        before = self.log.end("snapshots")
        for begin in range(0, len(messages), 3_000):
            self.log.append("predictions", messages[begin : begin + 3_000])
        while True:
            self.site.clock.now += wait_ms
            self.monitor.step()
            if self.monitor.positions["predictions"] == self.log.end("predictions"):
                return list(self.log.read("snapshots", before, limit=100_000))

    @property
    def log(self) -> EmbeddedLog:
        return self.site.log

    @property
    def status(self) -> Status:
        return merged({key: record.value for key, record in self.log.latest("snapshots").items()})


def test_seventy_thousand_invented_names_end_nothing_and_no_record_is_above_its_limit(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path / "log")
    written = []
    for model in range(8):
        written += rounds.round([names(1, model=f"m{model}")[0], *names(1_500, model=f"m{model}")])
    written += rounds.round(predictions(100))
    assert rounds.status.models["fraud"].desired == "v1"
    assert max(len(record.value or b"") for record in written) <= BYTES_MAX
    shown = rounds.status.models["m3"]
    assert len(shown.replicas) + shown.cut["replicas"] == 1_000
    assert rounds.status.rejected["REPLICA_LIMIT"] == 8 * 500


def test_round_of_one_event_writes_the_same_whatever_was_invented_before(tmp_path: Path) -> None:
    clean, dirty = Rounds(tmp_path / "clean"), Rounds(tmp_path / "dirty")
    dirty.round(names(3_000, model="m"))
    for rounds in (clean, dirty):
        rounds.round(predictions(1))
        found = [sum(len(record.value or b"") for record in rounds.round(predictions(1, i))) for i in range(1, 20)]
        assert max(found) < 1_000


def test_status_is_written_twice_a_second_at_most_and_not_at_all_without_a_change(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path / "log")
    rounds.round(predictions(1))
    times = [bool(rounds.round(predictions(1, i), STATUS_MS // 5)) for i in range(1, 21)]
    assert sum(times) == 4
    assert rounds.round(predictions(1, 100), STATUS_MS // 5) == []
    assert rounds.round([]) != []
    assert rounds.round([]) == []


def test_model_that_is_forgotten_leaves_the_status(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path / "log", f"limits: {{models: 1}}\n{NAMED}")
    rounds.round(predictions(1, model="junk"))
    assert set(rounds.status.models) == {"junk"}
    rounds.site.clock.now += 8 * DAY_MS
    rounds.round(predictions(1, model="other"))
    assert set(rounds.status.models) == {"other"}
    assert rounds.status == rounds.monitor.status()


def test_status_after_a_restart_has_only_what_the_new_monitor_knows(tmp_path: Path) -> None:
    rounds = Rounds(tmp_path / "log")
    rounds.round(predictions(1))
    gone = rounds.log.latest("snapshots")[b"status/0/fraud"].value
    rounds.log.append("snapshots", [Message(gone, b"status/0/gone")])
    assert set(rounds.status.models) == {"fraud", "gone"}
    rounds.monitor = rounds.site.monitor()
    rounds.round(predictions(1, 1))
    assert rounds.status == rounds.monitor.status()


def test_cut_status_keeps_what_serves_and_the_replicas_that_do_not_obey() -> None:
    def replica(number: int) -> Replica:
        version = "v2" if number < 5 else "v1"
        return Replica(shown=Shown(version, None, number), heard=number, since=0)

    replicas = {f"r-{number}-" + "\u0001" * 100: replica(number) for number in range(1_000)}
    outcomes = {"\u0002" * 100 + str(number): number for number in range(1_000)} | {"v1": 0}
    quarantine = ["\u0003" * 100 + str(number) for number in range(500)]
    status = ModelStatus("HEALTHY", "v1", (0, 1, 0), outcomes, None, None, quarantine, False, replicas)
    value = encode_model(status, 7)
    assert len(value) <= BYTES_MAX
    found = msgspec.json.decode(value, type=ModelRecord).status
    assert found.cut == {
        "replicas": 1_000 - len(found.replicas),
        "outcomes": 1_001 - len(found.outcomes),
        "quarantine": 500 - len(found.quarantine),
    }
    assert set(found.lagging(found.replicas)) == {f"r-{number}-" + "\u0001" * 100 for number in range(5)}
    assert "v1" in found.outcomes
    assert found.quarantine == quarantine[-len(found.quarantine) :]
    assert min(len(found.replicas), len(found.outcomes), len(found.quarantine)) > 5


HOSTILE: dict[str, bytes] = {
    "no JSON": b"{",
    "another shape": b"[1, 2]",
    "no UTF-8": b'{"clock": 1, "rejected": {"\xff": 1}}',
    "deep": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "large": b'{"x": "' + b"x" * 8_000_000 + b'"}',
    "numbers beyond all ranges": b'{"clock": 1e999, "rejected": {}}',
}


@pytest.mark.parametrize("name", ["status", "status/0", "status/0/fraud", "status/0/\x1b[2J", "status/1/2/3"])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_status_record_is_one_sentence_and_the_others_are_shown(
    name: str, value: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rounds = Rounds(tmp_path / "log", NAMED + "defaults: {}")
    rounds.round([*predictions(1), *predictions(1, model="other")])
    rounds.log.append("snapshots", [Message(value, name.encode())])
    rounds.log.close()
    result = CliRunner().invoke(main, ["--log", "embedded:log", "status"])
    assert result.exit_code == 1
    (sentence,) = [line for line in result.stdout.splitlines() if "cannot be read" in line]
    assert len(sentence) < 400
    assert "\x1b" not in result.stdout
    assert "\nother " in result.stdout


def test_status_of_an_earlier_build_is_read(tmp_path: Path) -> None:
    model = ModelStatus("HEALTHY", "v1", (0, 1, 0), {"v1": 3}, None, None, [], False, {})
    earlier = msgspec.to_builtins(Status(5, {"fraud": model}, {"DUPLICATE": 2}))
    del earlier["unread"], earlier["models"]["fraud"]["cut"]
    value = json.dumps(earlier).encode()
    for keys in ([b"status"], [b"status/0", b"status/1"]):
        found = merged(dict.fromkeys(keys, value))
        assert (found.models, found.clock, found.unread) == ({"fraud": model}, 5, [])
        assert found.rejected == {"DUPLICATE": 2 * len(keys)}


def test_model_has_the_age_of_its_own_ledger_partition() -> None:
    status = ModelStatus("HEALTHY", "v1", (0, 1, 0), {}, None, None, [], False, {})
    records = {
        b"status/%d" % number: msgspec.json.encode(HeadRecord(1, {}, seen=Seen(seen_ts, 0)))
        for number, seen_ts in enumerate((5_000, 9_000))
    }
    found = merged({**records, b"status/1/m": encode_model(status, 0), b"status/7/lost": encode_model(status, 0)})
    assert found.seen("m") == Seen(9_000, 0)
    assert found.seen("lost") is None
    assert {number: seen.seen_ts for number, seen in found.monitors.items()} == {"0": 5_000, "1": 9_000}
