"""A fleet starts again after it was closed, in the child of a fork, and with the life of an application."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.fleets import following
from tests.waiting import HANG_S
from unship import ConfigurationError, Fleet


def test_child_of_a_fork_serves_what_its_parent_obeyed_while_the_log_is_away(unship_embedded):
    fleet = Fleet("fraud", "v42", log=unship_embedded.log, trust=unship_embedded.trust).start()
    unship_embedded.command("fraud", "v41", quarantine=["v42"])
    assert fleet.wait_for("v41", HANG_S)
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
            assert fleet.wait_for(version, HANG_S)
            fleet.predicted(1)
            assert fleet.flush(HANG_S)
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
            assert await asyncio.to_thread(fleet.wait_for, version, HANG_S)
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
