"""A replica that lost its epoch judges everything that the topic holds, and reports the loss."""

from __future__ import annotations

import shutil

import pytest

from tests.fleets import following, stages
from tests.waiting import HANG_S
from unship import Fleet
from unship.replica.epoch_file import epoch_path


def garbage(path):
    path.write_bytes(b"\x00" * 99)


def truncated(path):
    path.write_bytes(path.read_bytes()[:40])


def deleted(path):
    path.unlink()


def of_another_build(path):
    path.write_bytes(b"unship-fence 2 " + path.read_bytes()[15:])


def deleted_with_its_folder(path):
    shutil.rmtree(path.parent.parent)


LOSSES = [
    (deleted_with_its_folder, "STATE_MISSING"),
    (deleted, "STATE_MISSING"),
    (truncated, "STATE_CORRUPT"),
    (garbage, "STATE_CORRUPT"),
    (of_another_build, "STATE_UNSUPPORTED"),
]


@pytest.mark.parametrize(("lose", "code"), LOSSES)
def test_older_command_written_again_is_not_obeyed_by_a_replica_that_lost_its_epoch(unship_embedded, lose, code):
    with following(unship_embedded) as fleet:
        old = unship_embedded.command("fraud", "v41")
        new = unship_embedded.command("fraud", "v40", quarantine=["v41"])
        assert fleet.wait_for("v40", HANG_S)
    replayed = next(record for record in unship_embedded.records("control") if record.offset == 0)
    unship_embedded.publish("fraud", replayed.value, replayed.headers)
    lose(epoch_path(unship_embedded.folder / "replicas", "fraud", "r-1"))
    with following(unship_embedded) as fleet:
        assert fleet.wait_for("v40", HANG_S)
        unship_embedded.until("acks", lambda acks: any(ack.code == code for ack in acks))
        assert (fleet.current.version, fleet.current.epoch) == ("v40", new)
        assert fleet.stats.refused == {code: 1, "REGRESSION": 1}
        assert code in fleet.stats.detail
        assert "r-1.state" in fleet.stats.detail
    assert ("serving", new, "v40", code) in stages(unship_embedded)
    assert ("refused", old, "v42", "REGRESSION") in stages(unship_embedded)


def test_expired_command_of_a_higher_epoch_does_not_keep_the_newest_valid_one_from_a_new_replica(unship_embedded):
    unship_embedded.command("fraud", "v41", epoch=(1, 1, 0))
    unship_embedded.command("fraud", "v40", epoch=(1, 50, 0), not_after_ts=5)
    epoch = unship_embedded.command("fraud", "v39", epoch=(1, 2, 0))
    unship_embedded.publish("fraud", b"garbage")
    with following(unship_embedded) as fleet:
        assert fleet.wait_for("v39", HANG_S)
        assert fleet.current.epoch == epoch


def test_deleted_file_is_a_loss_where_the_acks_are_gone_too(unship_embedded, tmp_path):
    kept = tmp_path / "kept"
    with following(unship_embedded, state=kept) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
    deleted(epoch_path(kept, "fraud", "r-1"))
    elsewhere = f"embedded:{tmp_path / 'another'}"
    with Fleet("fraud", "v42", log=elsewhere, trust=unship_embedded.trust, replica="r-1", state=kept) as fleet:
        assert fleet.stats.refused == {"STATE_MISSING": 1}


def test_first_start_is_no_loss_with_a_command_and_without(unship_embedded):
    for _ in range(2):
        with following(unship_embedded) as fleet:
            assert (fleet.stats.refused, fleet.stats.detail) == ({}, "")
    epoch = unship_embedded.command("fraud", "v41")
    for name in ("r-1", "r-2"):
        with following(unship_embedded, replica=name) as fleet:
            assert fleet.wait_for("v41", HANG_S)
            assert (fleet.stats.refused, fleet.stats.detail) == ({}, "")
    assert {ack.code for ack in unship_embedded.events("acks")} == {None}
    assert stages(unship_embedded)[-1] == ("serving", epoch, "v41", None)


def test_replica_without_a_lasting_name_has_nothing_to_lose(unship_embedded):
    unship_embedded.command("fraud", "v41")
    with following(unship_embedded, replica=None) as fleet:
        assert fleet.wait_for("v41", HANG_S)
        assert (fleet.stats.refused, fleet.stats.detail) == ({}, "")
