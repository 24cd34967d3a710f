"""A switch that something else than the library does stays staged until it is confirmed."""

from __future__ import annotations

import shutil

from tests.fleets import following, refusal, stages
from unship import LATER


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
