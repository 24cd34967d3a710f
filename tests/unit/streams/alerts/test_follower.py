"""A follower sends what the topic holds, each sink for itself, and goes on from its position after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from actions.adapters.sink import Problem
from actions.incidents import Alert, alert_bytes
from streams.alerts import follower as module
from streams.alerts.embedded_topic import EmbeddedAlertTopic
from streams.alerts.follower import Follower, Part
from tests.shown.alerts import alert
from tests.waiting import eventually
from unship.errors import UnshipError
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.link import wall_ms


class Sink:
    """Takes alerts while it is up."""

    name = "sink"
    repeat_ms: int | None = None

    def __init__(self, *, up: bool = True) -> None:
        self.up, self.got, self.tries, self.closed = up, list[Alert](), 0, False

    async def send(self, alert: Alert, now_ms: int) -> Problem | None:
        self.tries += 1
        if not self.up:
            return Problem("is away")
        self.got.append(alert)
        return None

    async def close(self) -> None:
        self.closed = True


def append(folder: Path, *alerts: Alert) -> None:
    with EmbeddedLog(folder, fsync=False) as log:
        log.append("alerts", [Message(alert_bytes(each), each.incident.encode()) for each in alerts])


async def ran(folder: Path, sink: Sink, reports: list[str], met: int) -> None:
    """Follow until the sink has so many alerts."""
    topic = EmbeddedAlertTopic(folder, "s")
    each = Follower(topic, sink, reports.append, wall_ms)
    task = asyncio.create_task(each.run())

    async def there() -> bool:
        return len(sink.got) >= met

    await eventually(there)
    each.stop()
    await task


def test_restart_goes_on_behind_what_the_sink_has(tmp_path: Path) -> None:
    sink, again, reports = Sink(), Sink(), list[str]()
    append(tmp_path, alert("a", 1), alert("b", 2))
    asyncio.run(ran(tmp_path, sink, reports, 2))
    append(tmp_path, alert("a", 3, "resolved"))
    asyncio.run(ran(tmp_path, again, reports, 1))
    assert [(each.incident, each.ts) for each in sink.got] == [("a", 1), ("b", 2)]
    assert [(each.incident, each.ts) for each in again.got] == [("a", 3)]
    assert (sink.closed, reports) == (True, [])


def test_sink_that_is_away_delays_no_other_and_has_everything_once_it_is_back(tmp_path: Path) -> None:
    away, there, reports, now = Sink(up=False), Sink(), list[str](), [wall_ms()]
    append(tmp_path, alert("a", 1))

    async def both() -> None:
        followers = [
            Follower(EmbeddedAlertTopic(tmp_path, name), sink, reports.append, lambda: now[0])
            for name, sink in (("away", away), ("there", there))
        ]
        tasks = [asyncio.create_task(each.run()) for each in followers]

        async def tried() -> bool:
            return bool(away.tries and there.got)

        await eventually(tried)
        for minute in range(10):
            now[0] += 60_000
            append(tmp_path, alert("a", 2 + minute), alert(f"b-{minute}", 2))

            async def all_there(count: int = 2 * minute + 3) -> bool:
                return len(there.got) == count

            await eventually(all_there)
        assert away.got == []
        away.up = True
        now[0] += 60_000

        async def caught_up() -> bool:
            return len(away.got) == 11

        await eventually(caught_up)
        for each in followers:
            each.stop()
        await asyncio.gather(*tasks)

    asyncio.run(both())
    newest = {each.incident: each.ts for each in there.got}
    assert {each.incident: each.ts for each in away.got} == newest
    assert len(newest) == 11
    assert reports[0] == "sink is away; alert a is sent again until it is taken"
    assert reports[-1] == "sink takes alerts again"


def test_log_that_cannot_be_read_is_reported_once_and_tried_again(monkeypatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    sink, reports, looks = Sink(), list[str](), [0]

    class Topic:
        async def read(self, timeout_s: float) -> Part:
            looks[0] += 1
            if looks[0] < 5:
                raise UnshipError("no broker answers")
            records = [module.Record((0, 0), 5, alert_bytes(alert("a", 1)))] if looks[0] == 5 else []
            return Part(looks[0] == 5, records, {}, True)

        async def commit(self, positions: dict[int, int]) -> None:
            each.stop()

        async def close(self) -> None:
            pass

    each = Follower(Topic(), sink, reports.append, wall_ms)
    asyncio.run(each.run())
    assert reports == ["alerts for sink wait: no broker answers"]
    assert [alert.incident for alert in sink.got] == ["a"]


def test_record_that_holds_no_alert_is_passed_over(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        log.append("alerts", [Message(b"{", b"x"), Message(None, b"x"), Message(msgspec.json.encode({}), None)])
    append(tmp_path, alert("a", 1))
    sink = Sink()
    asyncio.run(ran(tmp_path, sink, [], 1))
    assert [each.incident for each in sink.got] == ["a"]
