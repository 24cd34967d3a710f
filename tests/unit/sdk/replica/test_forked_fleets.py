"""A fleet that was started before a fork is a replica of its own in the child, from its first use on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.fleets import following
from tests.waiting import HANG_S, until
from unship import Fleet
from unship.replica.forked import NOT_FOLLOWING


def in_child(work: Callable[[], Any]) -> int:
    """Run something in the child of a fork; return its process, which ends with 0 if it returned."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(*children: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("name", [None, "web-0", "w" * 128])
def test_child_that_only_answers_follows_commands_under_a_name_of_its_own_and_loses_nothing(unship_embedded, name):
    fleet = following(unship_embedded, replica=name).start()

    def serve() -> None:
        assert fleet.current.version == "v42"
        for number in range(100):
            fleet.predicted(1, id=f"{os.getpid()}-{number}")
        assert fleet.wait_for("v41", HANG_S)
        fleet.predicted(1, id=f"{os.getpid()}-last", as_=fleet.current)
        fleet.close(HANG_S)
        assert (fleet.stats.sent, fleet.stats.dropped) == (101, {})

    children = [in_child(serve) for _ in range(3)]
    unship_embedded.until("predictions", lambda events: len(events) >= 300, HANG_S)
    epoch = unship_embedded.command("fraud", "v41")
    assert ended(*children) == [0, 0, 0]
    assert fleet.wait_for("v41", HANG_S)
    fleet.close()
    answers = unship_embedded.events("predictions")
    names = {event.replica for event in answers}
    assert len(answers) == 303
    assert len(names) == 3
    assert fleet.replica not in names
    assert all(len(each) <= 128 and (name or "")[:96] in each for each in names)
    last = [event for event in answers if event.id.endswith("-last")]
    assert {(event.version, event.epoch) for event in last} == {("v41", epoch)}
    serving = [ack for ack in unship_embedded.events("acks") if (ack.stage, ack.epoch) == ("serving", epoch)]
    assert {ack.replica for ack in serving} == names | {fleet.replica}
    assert len({ack.boot for ack in serving}) == 4


def test_forks_while_threads_answer_lose_nothing(unship_embedded):
    fleet = following(unship_embedded, replica=None).start()
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            fleet.predicted(1, as_=fleet.current)

    def serve() -> None:
        for number in range(20):
            fleet.predicted(1, id=f"child-{os.getpid()}-{number}", as_=fleet.current)
        fleet.close(HANG_S)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = [code for _ in range(8) for code in ended(in_child(serve))]
    stop.set()
    for thread in threads:
        thread.join()
    fleet.close(HANG_S)
    assert codes == [0] * 8
    answers = unship_embedded.events("predictions")
    assert sum(event.id.startswith("child-") for event in answers) == 160


def test_threads_of_a_child_that_use_it_at_once_start_it_once(unship_embedded):
    fleet = following(unship_embedded, replica="web-0").start()

    def serve() -> None:
        barrier = threading.Barrier(8)

        def first() -> None:
            barrier.wait()
            fleet.predicted(1)

        threads = [threading.Thread(target=first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: fleet.control_health == "OK")
        fleet.close(HANG_S)
        assert fleet.stats.sent == 8

    assert ended(in_child(serve)) == [0]
    fleet.close()
    assert len({event.replica for event in unship_embedded.events("predictions")}) == 1


def test_child_of_a_child_starts_by_itself_too(unship_embedded):
    fleet = following(unship_embedded, replica="web-0").start()

    def serve() -> None:
        fleet.predicted(1, id=f"p-{os.getpid()}")
        fleet.close(HANG_S)

    def fork_again() -> None:
        assert ended(in_child(serve)) == [0]
        serve()

    assert ended(in_child(fork_again)) == [0]
    fleet.close()
    assert len({event.replica for event in unship_embedded.events("predictions")}) == 2


def test_child_knows_the_epoch_that_its_parent_obeyed(unship_embedded):
    with following(unship_embedded) as fleet:
        old = unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        unship_embedded.command("fraud", "v40")
        assert fleet.wait_for("v40", HANG_S)

        def serve() -> None:
            fleet.predicted(1)
            until(lambda: fleet.control_health == "OK")
            unship_embedded.command("fraud", "v41", epoch=old)
            until(lambda: fleet.stats.refused == {"REGRESSION": 1})
            assert fleet.current.version == "v40"
            fleet.close(HANG_S)

        assert ended(in_child(serve)) == [0]


def test_child_that_starts_itself_has_the_given_name_where_its_parent_never_started(unship_embedded):
    fleet = following(unship_embedded, replica="web-0")

    def serve() -> None:
        with fleet:
            assert fleet.replica == "web-0"
        with fleet:
            assert fleet.replica == "web-0"

    assert ended(in_child(serve)) == [0]


def test_child_of_a_running_parent_that_starts_itself_takes_a_name_of_its_own(unship_embedded):
    with following(unship_embedded, replica="web-0") as fleet:

        def serve() -> None:
            with fleet:
                assert fleet.replica.startswith("web-0-")
                assert fleet.control_health == "OK"

        assert ended(in_child(serve)) == [0]


def test_child_that_cannot_follow_still_sends_and_reports_it(unship_embedded, monkeypatch, caplog):
    fleet = following(unship_embedded, replica="web-0").start()

    def fail(self: Fleet, trust: object) -> None:
        raise OSError("no thread")

    def serve() -> None:
        monkeypatch.setattr(Fleet, "_new_follower", fail)
        fleet.predicted(1, id="kid")
        until(lambda: NOT_FOLLOWING in caplog.text)
        assert fleet.stats.refused == {NOT_FOLLOWING: 1}
        assert fleet.control_health == "LOST"
        assert "no thread" in fleet.stats.detail
        assert fleet.flush(HANG_S)

    assert ended(in_child(serve)) == [0]
    fleet.close()
    (event,) = unship_embedded.events("predictions")
    assert event.replica != fleet.replica


def test_child_that_closes_before_its_first_use_starts_nothing(unship_embedded):
    fleet = following(unship_embedded).start()

    def serve() -> None:
        fleet.close()
        fleet.predicted(1)
        assert fleet.stats.dropped == {"CLOSED": 1}

    assert ended(in_child(serve)) == [0]
    fleet.close()


def test_child_deals_requests_out_as_its_parent_did_from_its_first_choice_on(unship_embedded):
    loaded: list[str] = []
    fleet = following(unship_embedded, on_version=loaded.append).start()
    fleet.choose()
    epoch = unship_embedded.command("fraud", "v42", shares={"v41": 0.5})
    until(lambda: fleet.stats.shares == {"v41": "ANSWERING"}, lambda: f"{fleet.stats}")
    units = [f"customer-{number}" for number in range(50)]
    dealt = [fleet.choose(unit).version for unit in units]

    def serve() -> None:
        assert [fleet.choose(unit).version for unit in units] == dealt
        # Until its own threads run, and after they do.
        until(lambda: fleet.stats.shares == {"v41": "ANSWERING"}, lambda: f"{fleet.stats}")
        assert [fleet.choose(unit).version for unit in units] == dealt
        assert loaded == ["v41"]
        fleet.close(HANG_S)

    assert ended(in_child(serve)) == [0]
    fleet.close()
    assert set(dealt) == {"v41", "v42"}
    assert {ack.beside for ack in unship_embedded.events("acks") if ack.epoch == epoch and ack.stage == "left"} == {
        ("v41",)
    }
