"""A command that is right is loaded, switched to and acknowledged, the newest one first."""

from __future__ import annotations

import shutil
import threading

import pytest

from tests.fleets import assert_becomes, following, refusal, stages
from tests.waiting import HANG_S
from unship import Fleet
from unship.log.embedded.log import EmbeddedLog
from unship.log.link import wall_ms


def test_signed_command_is_loaded_switched_to_and_acknowledged_in_order(unship_embedded):
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append) as fleet:
        assert (fleet.current.version, fleet.current.epoch, fleet.control_health) == ("v42", None, "OK")
        epoch = unship_embedded.command("fraud", "v41", quarantine=["v42"])
        assert fleet.wait_for("v41", HANG_S)
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving" and acks[-1].epoch == epoch)
        assert fleet.current.epoch == epoch
        fleet.predicted(1, id="p-1")
        assert fleet.flush(HANG_S)
    assert loaded == ["v41"]
    assert stages(unship_embedded) == [
        ("serving", (0, 0, 0), "v42", None),
        ("received", epoch, "v42", None),
        ("verified", epoch, "v42", None),
        ("staged", epoch, "v42", None),
        ("serving", epoch, "v41", None),
    ]
    (event,) = unship_embedded.events("predictions")
    assert (event.version, event.epoch) == ("v41", epoch)
    assert {record.key for record in unship_embedded.records("acks")} == {b"fraud/r-1"}


def test_replica_that_closes_acknowledges_that_it_left_and_what_it_served(unship_embedded):
    with following(unship_embedded) as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving" and acks[-1].epoch == epoch)
    last = unship_embedded.events("acks")[-1]
    assert (last.stage, last.epoch, last.serving, last.code) == ("left", epoch, "v41", None)
    with following(unship_embedded):
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving" and acks[-1].boot != last.boot)


def test_snapshot_cannot_be_changed_and_is_not_changed_by_a_switch(unship_embedded):
    with following(unship_embedded) as fleet:
        before = fleet.current
        with pytest.raises(AttributeError):
            before.version = "v0"
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        assert before.version == "v42"


def test_command_that_confirms_what_serves_loads_nothing_and_gives_it_an_epoch(unship_embedded):
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append) as fleet:
        epoch = unship_embedded.command("fraud", "v42")
        unship_embedded.until("acks", lambda acks: acks[-1].epoch == epoch and acks[-1].stage == "serving")
        assert fleet.current.epoch == epoch
    assert loaded == []


def test_command_for_another_model_is_not_even_looked_at(unship_embedded):
    with following(unship_embedded) as fleet:
        unship_embedded.command("credit", "v41")
        unship_embedded.command("fraud", "v40")
        assert fleet.wait_for("v40", HANG_S)
        assert fleet.stats.refused == {}


def test_forged_record_written_last_does_not_hide_the_command_before_it(unship_embedded):
    unship_embedded.command("fraud", "v40")
    epoch = unship_embedded.command("fraud", "v41")
    unship_embedded.publish("fraud", b'{"forged": true}')
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append) as fleet:
        assert (fleet.current.version, fleet.current.epoch) == ("v41", epoch)
    assert loaded == ["v41"]


def test_start_returns_with_the_newest_command_obeyed(unship_embedded):
    unship_embedded.command("fraud", "v41")
    with following(unship_embedded) as fleet:
        assert fleet.current.version == "v41"


def test_commands_that_came_while_one_was_loaded_are_obeyed_at_once_by_the_newest(unship_embedded):
    loaded, begun, go = [], threading.Event(), threading.Event()

    def load(version):
        loaded.append(version)
        begun.set()
        assert go.wait(HANG_S)

    with following(unship_embedded, on_version=load) as fleet:
        unship_embedded.command("fraud", "v41")
        assert begun.wait(HANG_S)
        assert fleet.current.version == "v42"
        for version in ("v38", "v39", "v40"):
            unship_embedded.command("fraud", version)
        go.set()
        assert fleet.wait_for("v40", HANG_S)
    assert loaded == ["v41", "v40"]


def test_log_lost_in_the_middle_keeps_the_version_and_a_new_log_is_followed(unship_embedded):
    with following(unship_embedded) as fleet:
        unship_embedded.command("fraud", "v41")
        # All that a switch writes is written, so that nothing writes into the folder while it is removed.
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving" and acks[-1].serving == "v41")
        shutil.rmtree(unship_embedded.folder)
        assert_becomes(fleet, "LOST")
        assert fleet.predicted(1, id="p-1") == "p-1"
        assert fleet.current.version == "v41"
        unship_embedded.close()
        unship_embedded._embedded = EmbeddedLog(unship_embedded.folder)
        assert_becomes(fleet, "OK")
        unship_embedded.command("fraud", "v40")
        assert fleet.wait_for("v40", HANG_S)


def test_monitor_that_falls_silent_is_reported_and_changes_nothing(unship_embedded):
    ahead = [0]
    with following(unship_embedded, beat_s=30.0, now_ms=lambda: wall_ms() + ahead[0]) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        assert fleet.control_health == "OK"
        ahead[0] = 3_600_000
        assert fleet.control_health == "STALE"
        assert fleet.current.version == "v41"


@pytest.mark.parametrize(("off_ms", "obeys"), [(86_400_000, False), (-86_400_000, True)])
def test_clock_that_jumps_a_day_keeps_what_serves_and_is_reported(unship_embedded, off_ms, obeys):
    off = [0]
    with following(unship_embedded, beat_s=30.0, now_ms=lambda: wall_ms() + off[0]) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        off[0] = off_ms
        assert (fleet.control_health, fleet.current.version) == ("STALE", "v41")
        # What is new has expired for a clock that is ahead, and for one that is behind it has not.
        unship_embedded.command("fraud", "v40")
        if obeys:
            assert fleet.wait_for("v40", HANG_S)
        else:
            assert refusal(unship_embedded, fleet, "EXPIRED")
            assert fleet.current.version == "v41"


def test_two_models_of_one_process_do_not_share_an_epoch(unship_embedded):
    with (
        following(unship_embedded) as fraud,
        Fleet("credit", "a", log=unship_embedded.log, trust=unship_embedded.trust, replica="r-1") as credit,
    ):
        unship_embedded.command("fraud", "v41", epoch=(5, 0, 0))
        unship_embedded.command("credit", "b", epoch=(4, 0, 0))
        assert fraud.wait_for("v41", HANG_S)
        assert credit.wait_for("b", HANG_S)
