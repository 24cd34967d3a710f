"""A command that is not right is refused with its code, and the replica serves on."""

from __future__ import annotations

import random

import pytest

from tests.fleets import following, refusal, stages
from tests.waiting import HANG_S
from unship.log.link import wall_ms
from unship.signing import COMMAND_TYPE, sign
from unship.testing import UnshipEmbedded


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
        assert fleet.wait_for("v41", HANG_S)


def test_older_and_contradicting_commands_are_refused(unship_embedded):
    with following(unship_embedded) as fleet:
        epoch = unship_embedded.command("fraud", "v41", epoch=(1, 7, 0))
        assert fleet.wait_for("v41", HANG_S)
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
        assert fleet.wait_for("v41", HANG_S)
        assert sum(fleet.stats.refused.values()) == 300


def test_flood_of_equal_refusals_is_not_a_flood_of_acks(unship_embedded):
    for _ in range(50):
        unship_embedded.publish("fraud", b"{}")
    with following(unship_embedded) as fleet:
        unship_embedded.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        assert sum(fleet.stats.refused.values()) >= 50
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "serving")
    assert len(stages(unship_embedded)) <= 10


def test_restarted_replica_refuses_what_is_older_than_it_obeyed(unship_embedded):
    with following(unship_embedded) as fleet:
        unship_embedded.command("fraud", "v41", epoch=(1, 7, 0))
        assert fleet.wait_for("v41", HANG_S)
    with following(unship_embedded, "v41") as fleet:
        unship_embedded.command("fraud", "v40", epoch=(1, 6, 0))
        assert refusal(unship_embedded, fleet, "REGRESSION") == "v41"
        assert fleet.current.epoch == (1, 7, 0)
    boots = {ack.boot for ack in unship_embedded.events("acks")}
    assert len(boots) == 2


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
        assert fleet.wait_for("v41", HANG_S)


def test_artifact_that_is_not_on_the_list_is_refused(unship_embedded):
    known = {"v42": "sha256:42", "v41": "sha256:41"}
    with following(unship_embedded, artifacts=known) as fleet:
        assert fleet.current.artifact == "sha256:42"
        unship_embedded.command("fraud", "v41", artifact="sha256:66")
        assert refusal(unship_embedded, fleet, "UNREGISTERED_ARTIFACT") == "v42"
        unship_embedded.command("fraud", "v41", artifact="sha256:42")
        assert refusal(unship_embedded, fleet, "LOAD_FAILED") == "v42"
        unship_embedded.command("fraud", "v41", artifact="sha256:41")
        assert fleet.wait_for("v41", HANG_S)
        assert fleet.current.artifact == "sha256:41"


def test_command_expires_by_the_clock_that_the_replica_was_given(unship_embedded):
    with following(unship_embedded, now_ms=lambda: wall_ms() + 10 * 86_400_000) as fleet:
        unship_embedded.command("fraud", "v41")
        assert refusal(unship_embedded, fleet, "EXPIRED")
        assert fleet.current.version == "v42"


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
