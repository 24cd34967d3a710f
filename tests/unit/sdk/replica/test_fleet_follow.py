"""A replica obeys signed commands for it, proves it, and serves on whatever else happens."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from unship import LATER, ConfigurationError, Fleet
from unship.log.embedded.log import EmbeddedLog
from unship.log.link import wall_ms
from unship.replica.epoch_file import EpochFile, epoch_path
from unship.replica.fence import restore
from unship.signing import COMMAND_TYPE, sign
from unship.testing import UnshipEmbedded


def following(bench: UnshipEmbedded, version: str = "v42", **settings: Any) -> Any:
    return Fleet("fraud", version, log=bench.log, trust=bench.trust, **{"replica": "r-1", **settings})


def stages(bench, *, replica="r-1"):
    return [(ack.stage, ack.epoch, ack.serving, ack.code) for ack in bench.events("acks") if ack.replica == replica]


def refusal(bench, fleet, code):
    """Wait until a refusal was acknowledged, and return what was served meanwhile."""
    bench.until("acks", lambda acks: any(ack.code == code for ack in acks))
    assert fleet.stats.refused[code] >= 1
    return fleet.current.version


def test_signed_command_is_loaded_switched_to_and_acknowledged_in_order(unship_embedded):
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append) as fleet:
        assert (fleet.current.version, fleet.current.epoch, fleet.control_health) == ("v42", None, "OK")
        epoch = unship_embedded.command("fraud", "v41", quarantine=["v42"])
        assert fleet.wait_for("v41")
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving" and acks[-1].epoch == epoch)
        assert fleet.current.epoch == epoch
        fleet.predicted(1, id="p-1")
        assert fleet.flush()
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


def test_snapshot_cannot_be_changed_and_is_not_changed_by_a_switch(unship_embedded):
    with following(unship_embedded) as fleet:
        before = fleet.current
        with pytest.raises(AttributeError):
            before.version = "v0"
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")
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
        assert fleet.wait_for("v40")
        assert fleet.stats.refused == {}


def test_forged_foreign_expired_and_malformed_commands_are_refused_with_their_code(unship_embedded, tmp_path):
    folder = tmp_path / "stranger"
    folder.mkdir(mode=0o700)
    stranger = UnshipEmbedded(folder)
    stranger.command("fraud", "v1", epoch=(9, 0, 0))
    (forged,) = stranger.records("control")
    stranger.close()
    with following(unship_embedded) as fleet:
        unship_embedded.publish("fraud", forged.value, forged.headers)
        assert refusal(unship_embedded, fleet, "UNKNOWN_KEY") == "v42"
        unship_embedded.publish("fraud", forged.value)
        assert refusal(unship_embedded, fleet, "BAD_SIGNATURE") == "v42"
        unship_embedded.command("fraud", "v1", audience="another")
        assert refusal(unship_embedded, fleet, "WRONG_AUDIENCE") == "v42"
        unship_embedded.command("fraud", "v1", not_after_ts=1)
        assert refusal(unship_embedded, fleet, "EXPIRED") == "v42"
        unship_embedded.command("fraud", "v1", quarantine=["v1"])
        assert refusal(unship_embedded, fleet, "QUARANTINED") == "v42"
        unship_embedded.publish("fraud", None)
        assert refusal(unship_embedded, fleet, "UNSUPPORTED_SCHEMA") == "v42"
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")


def test_older_and_contradicting_commands_are_refused(unship_embedded):
    with following(unship_embedded) as fleet:
        epoch = unship_embedded.command("fraud", "v41", epoch=(1, 7, 0))
        assert fleet.wait_for("v41")
        unship_embedded.command("fraud", "v40", epoch=(1, 6, 9))
        assert refusal(unship_embedded, fleet, "REGRESSION") == "v41"
        unship_embedded.command("fraud", "v40", epoch=epoch)
        assert refusal(unship_embedded, fleet, "EQUIVOCATION") == "v41"


def test_any_bytes_on_the_topic_end_nothing(unship_embedded):
    chance = random.Random(7)
    names = ["unship_sig", "unship_key", "other"]
    with following(unship_embedded) as fleet:
        for _ in range(300):
            headers = [
                (chance.choice(names), chance.randbytes(chance.randrange(99))) for _ in range(chance.randrange(4))
            ]
            unship_embedded.publish("fraud", chance.randbytes(chance.randrange(300)), headers)
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")
        assert sum(fleet.stats.refused.values()) == 300


def test_flood_of_equal_refusals_is_not_a_flood_of_acks(unship_embedded):
    for _ in range(50):
        unship_embedded.publish("fraud", b"{}")
    with following(unship_embedded) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")
        assert sum(fleet.stats.refused.values()) >= 50
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving")
    assert len(stages(unship_embedded)) <= 10


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


def test_restart_without_the_log_serves_what_was_ordered_and_not_what_was_built_in(unship_embedded, tmp_path):
    kept = tmp_path / "kept"
    with following(unship_embedded, state=kept) as fleet:
        epoch = unship_embedded.command("fraud", "v41", quarantine=["v42"])
        assert fleet.wait_for("v41")
    unship_embedded.folder.rename(tmp_path / "away")
    (tmp_path / "unship" / "log").write_text("in the way")
    loaded: list[str] = []
    with following(unship_embedded, state=kept, on_version=loaded.append) as fleet:
        assert loaded == ["v41"]
        assert (fleet.current.version, fleet.current.epoch) == ("v41", epoch)
        assert fleet.control_health == "LOST"
        fleet.close(timeout_s=0.5)


def test_restarted_replica_refuses_what_is_older_than_it_obeyed(unship_embedded):
    with following(unship_embedded) as fleet:
        unship_embedded.command("fraud", "v41", epoch=(1, 7, 0))
        assert fleet.wait_for("v41")
    with following(unship_embedded, "v41") as fleet:
        unship_embedded.command("fraud", "v40", epoch=(1, 6, 0))
        assert refusal(unship_embedded, fleet, "REGRESSION") == "v41"
        assert fleet.current.epoch == (1, 7, 0)
    boots = {ack.boot for ack in unship_embedded.events("acks")}
    assert len(boots) == 2


def kept(path: Path) -> Any:
    return restore(path.read_bytes(), "fraud", "test")


def test_epoch_is_on_disk_before_the_version_is_loaded(unship_embedded):
    path = epoch_path(unship_embedded.folder / "replicas", "fraud", "r-1")
    seen = []

    def load(version):
        state, loss = kept(path)
        seen.append((loss, state.epoch, state.wanted.version, state.serving.version, fleet.current.version))

    fleet = following(unship_embedded, on_version=load)
    with fleet:
        epoch = unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")
    assert seen == [(None, epoch, "v41", "v42", "v42")]
    state, _ = kept(path)
    assert (state.serving.version, state.serving.epoch) == ("v41", epoch)


def test_refused_record_does_not_try_a_failed_load_again(unship_embedded):
    tries: list[str] = []

    def load(version):
        tries.append(version)
        raise RuntimeError("broken")

    with following(unship_embedded, on_version=load) as fleet:
        unship_embedded.command("fraud", "v41")
        assert refusal(unship_embedded, fleet, "LOAD_FAILED") == "v42"
        for _ in range(3):
            unship_embedded.publish("fraud", b"forged")
        unship_embedded.until("acks", lambda acks: acks[-1].code == "BAD_SIGNATURE")
    assert tries == ["v41"]


@pytest.mark.parametrize("error", [RuntimeError("no such file"), SystemExit(1)])
def test_load_that_raises_keeps_the_old_version_and_is_tried_again_at_the_next_beat(unship_embedded, error):
    broken = [error]

    def load(version):
        if broken:
            raise broken.pop()

    with following(unship_embedded, on_version=load) as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        assert refusal(unship_embedded, fleet, "LOAD_FAILED") == "v42"
        assert fleet.current.epoch is None
        assert "v41" in fleet.stats.detail
        assert stages(unship_embedded)[-1] == ("refused", epoch, "v42", "LOAD_FAILED")
        unship_embedded.command("fraud", "v41", epoch=epoch)
        assert fleet.wait_for("v41")


def test_command_whose_epoch_cannot_be_kept_is_not_obeyed_until_it_can(unship_embedded, tmp_path):
    in_the_way = tmp_path / "kept"
    in_the_way.write_text("no folder")
    with following(unship_embedded, state=in_the_way / "r-1.state") as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        assert refusal_acked(unship_embedded) == ("refused", epoch, "v42", "LOAD_FAILED")
        assert fleet.current.epoch is None
        assert str(in_the_way) in fleet.stats.detail
        in_the_way.unlink()
        unship_embedded.command("fraud", "v41", epoch=epoch)
        assert fleet.wait_for("v41")


def refusal_acked(bench):
    bench.until("acks", lambda acks: acks[-1].stage == "refused" if acks else False)
    return stages(bench)[-1]


def test_damaged_file_is_no_crash_and_the_newest_command_is_obeyed(unship_embedded):
    path = epoch_path(unship_embedded.folder / "replicas", "fraud", "r-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x00" * 99)
    unship_embedded.command("fraud", "v41")
    with following(unship_embedded) as fleet:
        assert fleet.current.version == "v41"


def test_artifact_that_is_not_on_the_list_is_refused(unship_embedded):
    known = {"v42": "sha256:42", "v41": "sha256:41"}
    with following(unship_embedded, artifacts=known) as fleet:
        assert fleet.current.artifact == "sha256:42"
        unship_embedded.command("fraud", "v41", artifact="sha256:66")
        assert refusal(unship_embedded, fleet, "UNREGISTERED_ARTIFACT") == "v42"
        unship_embedded.command("fraud", "v41", artifact="sha256:42")
        assert refusal(unship_embedded, fleet, "LOAD_FAILED") == "v42"
        unship_embedded.command("fraud", "v41", artifact="sha256:41")
        assert fleet.wait_for("v41")
        assert fleet.current.artifact == "sha256:41"


def test_commands_that_came_while_one_was_loaded_are_obeyed_at_once_by_the_newest(unship_embedded):
    loaded, begun, go = [], threading.Event(), threading.Event()

    def load(version):
        loaded.append(version)
        begun.set()
        assert go.wait(30)

    with following(unship_embedded, on_version=load) as fleet:
        unship_embedded.command("fraud", "v41")
        assert begun.wait(30)
        assert fleet.current.version == "v42"
        for version in ("v38", "v39", "v40"):
            unship_embedded.command("fraud", version)
        go.set()
        assert fleet.wait_for("v40")
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
        assert fleet.wait_for("v40", timeout_s=30.0)


def assert_becomes(fleet, health):
    pause = threading.Event()
    for _ in range(3_000):
        if fleet.control_health == health:
            return
        pause.wait(0.01)
    raise AssertionError(f"{fleet.control_health}: {fleet.stats}")


def test_monitor_that_falls_silent_is_reported_and_changes_nothing(unship_embedded):
    ahead = [0]
    with following(unship_embedded, beat_s=30.0, now_ms=lambda: wall_ms() + ahead[0]) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")
        assert fleet.control_health == "OK"
        ahead[0] = 3_600_000
        assert fleet.control_health == "STALE"
        assert fleet.current.version == "v41"


@pytest.mark.parametrize(("off_ms", "obeys"), [(86_400_000, False), (-86_400_000, True)])
def test_clock_that_jumps_a_day_keeps_what_serves_and_is_reported(unship_embedded, off_ms, obeys):
    off = [0]
    with following(unship_embedded, beat_s=30.0, now_ms=lambda: wall_ms() + off[0]) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41")
        off[0] = off_ms
        assert (fleet.control_health, fleet.current.version) == ("STALE", "v41")
        # What is new has expired for a clock that is ahead, and for one that is behind it has not.
        unship_embedded.command("fraud", "v40")
        if obeys:
            assert fleet.wait_for("v40")
        else:
            assert refusal(unship_embedded, fleet, "EXPIRED")
            assert fleet.current.version == "v41"


def test_command_expires_by_the_clock_that_the_replica_was_given(unship_embedded):
    with following(unship_embedded, now_ms=lambda: wall_ms() + 10 * 86_400_000) as fleet:
        unship_embedded.command("fraud", "v41")
        assert refusal(unship_embedded, fleet, "EXPIRED")
        assert fleet.current.version == "v42"


def test_two_models_of_one_process_do_not_share_an_epoch(unship_embedded):
    with (
        following(unship_embedded) as fraud,
        Fleet("credit", "a", log=unship_embedded.log, trust=unship_embedded.trust, replica="r-1") as credit,
    ):
        unship_embedded.command("fraud", "v41", epoch=(5, 0, 0))
        unship_embedded.command("credit", "b", epoch=(4, 0, 0))
        assert fraud.wait_for("v41")
        assert credit.wait_for("b")


def test_second_process_of_the_same_name_is_told_to_take_another(tmp_path):
    first, second = EpochFile(tmp_path / "m" / "r.state"), EpochFile(tmp_path / "m" / "r.state")
    first.acquire()
    with pytest.raises(ConfigurationError, match="replica"):
        second.acquire(timeout_s=0.0)
    with pytest.raises(ConfigurationError, match="replica"):
        second.write(b"older")
    first.release()
    second.write(b"mine")
    assert first.read() == b"mine"
    second.release()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "x" * 128, "ä" * 128, "\x00", "r-1"])
def test_any_name_of_a_replica_gives_a_file_inside_the_folder(tmp_path, name):
    path = epoch_path(tmp_path, name, name)
    assert path.parent.parent == tmp_path
    file = EpochFile(path)
    file.write(b"kept")
    assert path.resolve().read_bytes() == b"kept"
    assert path.resolve().parents[1] == tmp_path.resolve()
    file.release()


def test_signature_for_another_type_is_no_command(unship_embedded):
    unship_embedded.command("fraud", "v41")
    (record,) = unship_embedded.records("control")
    signed = sign(record.value, unship_embedded._private_key, "application/vnd.unship.operator+json")
    assert sign(record.value, unship_embedded._private_key, COMMAND_TYPE) == list(record.headers)
    with following(unship_embedded, "v40", replica="r-2") as fleet:
        assert fleet.current.version == "v41"
        newer = record.value.replace(b'"serve":"v41"', b'"serve":"v39"')
        unship_embedded.publish("fraud", newer, signed)
        assert refusal(unship_embedded, fleet, "BAD_SIGNATURE") == "v41"


def test_switch_done_elsewhere_stays_staged_until_it_is_confirmed(unship_embedded):
    with following(unship_embedded, on_version=lambda version: LATER) as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
        assert (fleet.current.version, fleet.desired.version, fleet.desired.epoch) == ("v42", "v41", epoch)
        assert fleet.confirm("v40", epoch) == "NOT_WANTED"
        assert fleet.confirm("v41", epoch) == "SWITCHED"
        assert (fleet.current.version, fleet.current.epoch) == ("v41", epoch)
        assert fleet.confirm("v41", epoch) == "SWITCHED"
    assert [stage for stage, *_ in stages(unship_embedded)][-2:] == ["staged", "serving"]


def test_switch_that_failed_elsewhere_keeps_the_old_version_and_can_still_succeed(unship_embedded):
    with following(unship_embedded, on_version=lambda version: LATER) as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
        assert fleet.confirm("v41", epoch, ok=False, detail="no such file") == "FAILED"
        assert refusal(unship_embedded, fleet, "LOAD_FAILED") == "v42"
        assert fleet.confirm("v41", epoch) == "SWITCHED"


def test_newer_command_overtakes_a_switch_that_was_not_confirmed(unship_embedded):
    with following(unship_embedded, on_version=lambda version: LATER) as fleet:
        old = unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
        new = unship_embedded.command("fraud", "v40")
        unship_embedded.until("acks", lambda acks: acks[-1].epoch == new and acks[-1].stage == "staged")
        assert fleet.confirm("v41", old) == "NOT_WANTED"
        assert fleet.confirm("v40", new) == "SWITCHED"
        assert fleet.current.version == "v40"


def test_confirmation_is_taken_while_the_log_is_away(unship_embedded):
    with following(unship_embedded, on_version=lambda version: LATER) as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
        shutil.rmtree(unship_embedded.folder)
        assert fleet.confirm("v41", epoch) == "SWITCHED"
        assert fleet.current.version == "v41"


def test_confirmation_before_the_start_is_not_wanted(unship_embedded):
    assert following(unship_embedded).confirm("v41", (1, 0, 0)) == "NOT_WANTED"


def test_child_of_a_fork_serves_what_its_parent_obeyed_while_the_log_is_away(unship_embedded):
    fleet = Fleet("fraud", "v42", log=unship_embedded.log, trust=unship_embedded.trust).start()
    unship_embedded.command("fraud", "v41", quarantine=["v42"])
    assert fleet.wait_for("v41")
    unship_embedded.folder.rename(unship_embedded.folder.with_name("away"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if fleet.start().current.version == "v41" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fleet.close()


def test_fleet_started_again_after_it_was_closed_serves_and_follows_as_before(unship_embedded):
    loaded: list[str] = []
    fleet = following(unship_embedded, on_version=loaded.append)
    for version in ("v41", "v40"):
        with fleet:
            unship_embedded.command("fraud", version)
            assert fleet.wait_for(version)
            fleet.predicted(1)
            assert fleet.flush()
            assert fleet.stats.sent == 1
        assert fleet.current.version == version
    assert loaded == ["v41", "v40"]
    assert [event.version for event in unship_embedded.events("predictions")] == ["v41", "v40"]


def test_application_with_the_lifespan_starts_the_fleet_sends_the_last_answer_and_can_run_again(unship_embedded):
    fleet = following(unship_embedded)

    async def run(version: str) -> str:
        async with fleet.lifespan(app=None):
            serving = fleet.current.version
            await asyncio.to_thread(unship_embedded.command, "fraud", version)
            assert await asyncio.to_thread(fleet.wait_for, version)
            fleet.predicted(1)
            return serving

    assert [asyncio.run(run("v41")), asyncio.run(run("v40"))] == ["v42", "v41"]
    assert [event.version for event in unship_embedded.events("predictions")] == ["v41", "v40"]
    assert fleet.predicted(1, id="late") == "late"
    assert fleet.stats.dropped == {"CLOSED": 1}


def test_lifespan_of_a_fleet_that_cannot_start_raises_before_the_application_serves(unship_embedded):
    second = following(unship_embedded)

    async def run() -> None:
        async with second.lifespan(app=None):
            raise AssertionError("served")

    with following(unship_embedded), pytest.raises(ConfigurationError, match="another process has"):
        asyncio.run(run())
