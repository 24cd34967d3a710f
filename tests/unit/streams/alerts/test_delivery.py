"""What a sink gets, and when: each incident in its newest state, however often the sink was away."""

from __future__ import annotations

import pytest

from actions.incidents import Alert
from streams.alerts.delivery import KEEP_MS, PAUSE_MAX_MS, PAUSE_MIN_MS, REFUSED_TRIES, WAITING_MAX, Delivery
from tests.shown.alerts import alert

T0 = 1_700_000_000_000


def delivery(*alerts: Alert, position: int | None = 0, repeat_ms: int | None = None) -> Delivery:
    found = Delivery(repeat_ms)
    for offset, each in enumerate(alerts):
        assert found.take((0, offset), each, T0, position) is None
    found.started(T0)
    return found


def drained(found: Delivery, now: int = T0) -> list[tuple[str, int]]:
    got = []
    while (each := found.due(now)) is not None:
        found.sent(each, now)
        got.append((each.incident, each.ts))
    return got


def test_each_incident_is_sent_once_in_its_newest_state() -> None:
    found = delivery(alert("a", 1), alert("b", 2), alert("a", 3), alert("a", 2), alert("b", 4, "resolved"))
    assert drained(found) == [("a", 3), ("b", 4)]
    assert found.positions() == {0: 5}


def test_sink_that_is_away_for_ten_minutes_gets_the_newest_state_of_each_incident_afterwards() -> None:
    found, now, tries = delivery(alert("a", 1)), T0, 0
    while now < T0 + 600_000:
        each = found.due(now)
        if each is not None:
            assert not found.failed(each, now, refused=False)
            tries += 1
        now += 500
    found.take((0, 1), alert("b", 5), T0, 0)
    found.take((0, 2), alert("a", 6, "resolved"), T0, 0)
    assert found.positions() == {0: 0}
    assert 600_000 // PAUSE_MAX_MS <= tries < 40
    assert drained(found, now + PAUSE_MAX_MS) == [("a", 6), ("b", 5)]
    assert found.positions() == {0: 3}


def test_pauses_grow_to_their_limit_and_end_with_the_first_success() -> None:
    found, now, pauses = delivery(alert("a", 1)), T0, []
    for _ in range(8):
        each = found.due(now)
        assert each is not None
        found.failed(each, now, refused=False)
        pause = next(ms for ms in range(0, 2 * PAUSE_MAX_MS, 500) if found.due(now + ms) is not None)
        pauses.append(pause)
        now += pause
    assert pauses == [PAUSE_MIN_MS << n for n in range(5)] + [PAUSE_MAX_MS] * 3
    assert drained(found, now) == [("a", 1)]
    assert found.failures == 0


def test_alert_that_the_sink_refuses_is_dropped_after_a_few_tries_and_keeps_no_other_waiting() -> None:
    found, now, order, dropped = delivery(alert("bad", 1), alert("good", 2)), T0, [], []
    while (each := found.due(now)) is not None:
        order.append(each.incident)
        if each.incident == "bad":
            dropped.append(found.failed(each, now, refused=True))
            now += PAUSE_MAX_MS
        else:
            found.sent(each, now)
    assert order == ["bad", "good"] + ["bad"] * (REFUSED_TRIES - 1)
    assert dropped == [False] * (REFUSED_TRIES - 1) + [True]
    assert found.positions() == {0: 2}


def test_alert_is_tried_for_a_day() -> None:
    found = delivery(alert("a", 1))
    each = found.due(T0)
    assert each is not None
    assert not found.failed(each, T0 + KEEP_MS - 1, refused=False)
    assert found.failed(each, T0 + KEEP_MS, refused=False)


def test_state_that_arrives_while_an_older_one_is_under_way_is_sent_after_it() -> None:
    found = delivery(alert("a", 1))
    under_way = found.due(T0)
    assert under_way is not None
    found.take((0, 1), alert("a", 2, "resolved"), T0, 0)
    found.sent(under_way, T0)
    assert drained(found) == [("a", 2)]


def test_after_a_restart_only_what_lies_behind_the_position_is_sent() -> None:
    assert drained(delivery(alert("a", 1), alert("b", 2), alert("a", 3), position=2)) == [("a", 3)]


def test_new_sink_gets_what_is_open_and_nothing_that_was_resolved_long_ago() -> None:
    found = Delivery()
    for offset, (each, ts) in enumerate(
        [
            (alert("old", 1), T0 - 3 * KEEP_MS),
            (alert("over", 2), T0 - 2 * KEEP_MS),
            (alert("over", 3, "resolved"), T0 - 2 * KEEP_MS),
            (alert("new", 4, "resolved"), T0),
        ]
    ):
        found.take((0, offset), each, ts, None)
    found.started(T0)
    assert drained(found) == [("old", 1), ("new", 4)]


def test_sink_without_memory_gets_open_incidents_again_and_after_a_restart_too() -> None:
    found = delivery(alert("a", 1), alert("b", 2), alert("b", 3, "resolved"), position=3, repeat_ms=60_000)
    assert drained(found, T0) == []
    assert drained(found, T0 + 60_000) == [("a", 1)]
    assert drained(found, T0 + 61_000) == []
    each = found.due(T0 + 120_000)
    assert each is not None
    assert not found.failed(each, T0 + 120_000, refused=True)
    assert drained(found, T0 + 180_000) == [("a", 1)]


def test_places_are_bounded_and_what_is_dropped_is_reported() -> None:
    found = Delivery(1)
    reports = [found.take((0, n), alert(f"i-{n}", n), T0, 0) for n in range(20 * WAITING_MAX)]
    assert found.waiting == WAITING_MAX
    assert sum(each is not None for each in reports) == 19 * WAITING_MAX
    assert reports[-1] == f"alert i-{19 * WAITING_MAX - 1} was dropped: {WAITING_MAX} incidents wait"


@pytest.mark.parametrize("value", [None, alert("a", 1)])
def test_record_without_an_alert_and_a_repeated_one_move_the_position_only(value: Alert | None) -> None:
    found = delivery(alert("a", 1))
    drained(found)
    found.take((0, 1), value, T0, 0)
    assert (found.due(T0), found.positions()) == (None, {0: 2})
