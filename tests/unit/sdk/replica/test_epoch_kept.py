"""What a replica obeyed is on disk before it is served, and counts again after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fleets import following, stages
from tests.waiting import HANG_S
from unship import ConfigurationError
from unship.replica.epoch_file import EpochFile, epoch_path
from unship.replica.fence import restore


def kept(path: Path) -> Any:
    return restore(path.read_bytes(), "fraud", "test")


def refusal_acked(bench):
    bench.until("acks", lambda acks: acks[-1].stage == "refused" if acks else False)
    return stages(bench)[-1]


def test_restart_without_the_log_serves_what_was_ordered_and_not_what_was_built_in(unship_embedded, tmp_path):
    kept = tmp_path / "kept"
    with following(unship_embedded, state=kept) as fleet:
        epoch = unship_embedded.command("fraud", "v41", quarantine=["v42"])
        assert fleet.wait_for("v41", HANG_S)
    unship_embedded.folder.rename(tmp_path / "away")
    (tmp_path / "unship" / "log").write_text("in the way")
    loaded: list[str] = []
    with following(unship_embedded, state=kept, on_version=loaded.append) as fleet:
        assert loaded == ["v41"]
        assert (fleet.current.version, fleet.current.epoch) == ("v41", epoch)
        assert fleet.control_health == "LOST"
        fleet.close(timeout_s=0.5)


def test_epoch_is_on_disk_before_the_version_is_loaded(unship_embedded):
    path = epoch_path(unship_embedded.folder / "replicas", "fraud", "r-1")
    seen = []

    def load(version):
        state, loss = kept(path)
        seen.append((loss, state.epoch, state.wanted.version, state.serving.version, fleet.current.version))

    fleet = following(unship_embedded, on_version=load)
    with fleet:
        epoch = unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
    assert seen == [(None, epoch, "v41", "v42", "v42")]
    state, _ = kept(path)
    assert (state.serving.version, state.serving.epoch) == ("v41", epoch)


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
        assert fleet.wait_for("v41", HANG_S)


def test_damaged_file_is_no_crash_and_the_newest_command_is_obeyed(unship_embedded):
    path = epoch_path(unship_embedded.folder / "replicas", "fraud", "r-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x00" * 99)
    unship_embedded.command("fraud", "v41")
    with following(unship_embedded) as fleet:
        assert fleet.current.version == "v41"


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
