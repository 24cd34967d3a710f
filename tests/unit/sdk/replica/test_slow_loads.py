"""A load that hangs holds up nothing but itself, and is named until it returns."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from tests.fleets import following, refusal, stages
from tests.waiting import HANG_S, until
from unship import ConfigurationError
from unship.replica.loading import HANGING_MAX, LoadsHang, TimedLoads

HANGS_S = 0.05


class Gate:
    """Hold up the loads of some versions until it opens."""

    def __init__(self, *held: str) -> None:
        self.held = held
        self.opened = threading.Event()
        self.calls: Counter[str] = Counter()
        self.returned: list[str] = []

    def __call__(self, version: str) -> None:
        self.calls[version] += 1
        if version in self.held:
            assert self.opened.wait(HANG_S)
        self.returned.append(version)


@pytest.fixture
def gate():
    gate = Gate("v41")
    yield gate
    gate.opened.set()


def test_newer_command_is_obeyed_while_the_load_before_it_hangs_and_its_late_return_changes_nothing(
    unship_embedded, gate
):
    with following(unship_embedded, on_version=gate, load_timeout=HANGS_S) as fleet:
        hung = unship_embedded.command("fraud", "v41")
        assert refusal(unship_embedded, fleet, "LOAD_FAILED") == "v42"
        assert ("refused", hung, "v42", "LOAD_FAILED") in stages(unship_embedded)
        assert "loading v41 for " in fleet.stats.detail
        assert "load_timeout" in fleet.stats.detail
        assert list(fleet.stats.loading) == ["v41"]
        epoch = unship_embedded.command("fraud", "v40")
        assert fleet.wait_for("v40", HANG_S)
        assert list(fleet.stats.loading) == ["v41"]
        gate.opened.set()
        until(lambda: not fleet.stats.loading)
        assert (fleet.current.version, fleet.current.epoch) == ("v40", epoch)
        assert "loading" not in fleet.stats.detail
        assert gate.returned == ["v40", "v41"]


def test_load_that_hangs_is_not_started_again_by_a_refresh_and_counts_when_it_is_asked_for_after_its_return(
    unship_embedded, gate
):
    with following(unship_embedded, on_version=gate, load_timeout=HANGS_S) as fleet:
        epoch = unship_embedded.command("fraud", "v41")
        refusal(unship_embedded, fleet, "LOAD_FAILED")
        unship_embedded.command("fraud", "v41", epoch=epoch)
        until(lambda: "LOADS_HANG" in fleet.stats.refused)
        assert fleet.current.version == "v42"
        gate.opened.set()
        until(lambda: not fleet.stats.loading)
        assert fleet.current.version == "v42"
        unship_embedded.command("fraud", "v41", epoch=epoch)
        assert fleet.wait_for("v41", HANG_S)
        assert gate.calls == {"v41": 1}


def test_fleet_closes_and_starts_again_while_a_load_hangs(unship_embedded, gate):
    fleet = following(unship_embedded, on_version=gate, load_timeout=HANG_S)
    with fleet:
        unship_embedded.command("fraud", "v41")
        until(lambda: fleet.stats.loading)
        fleet.close(timeout_s=0.0)
    unship_embedded.command("fraud", "v40")
    with fleet.start(wait_s=0.0):
        gate.opened.set()
        assert fleet.wait_for("v40", HANG_S)


def test_no_more_than_a_few_loads_hang_and_the_others_are_refused_by_name():
    gate = Gate(*(f"v{number}" for number in range(HANGING_MAX + 1)))
    loads = TimedLoads(gate, HANGS_S)
    for number in range(HANGING_MAX):
        with pytest.raises(TimeoutError, match="load_timeout"):
            loads.run(f"v{number}")
    with pytest.raises(LoadsHang, match=rf"loading v0 for .* at most {HANGING_MAX} loads"):
        loads.run(f"v{HANGING_MAX}")
    assert sorted(loads.running) == [f"v{number}" for number in range(HANGING_MAX)]
    gate.opened.set()
    until(lambda: not loads.running)
    loads.run(f"v{HANGING_MAX}")
    assert gate.calls[f"v{HANGING_MAX}"] == 1
    loads.abandon()


def test_loads_that_return_share_one_thread_and_raise_what_they_raise():
    seen: list[str] = []

    def load(version: str) -> int:
        seen.append(threading.current_thread().name + str(threading.get_ident()))
        if version == "v0":
            raise SystemExit(version)
        return 7

    loads = TimedLoads(load, HANG_S)
    with pytest.raises(SystemExit, match="v0"):
        loads.run("v0")
    assert [loads.run("v1"), loads.run("v1")] == [7, 7]
    assert len(set(seen)) == 1
    assert len(seen) == 3
    loads.abandon()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_deadline_that_is_none_is_a_wrong_setting(unship_embedded, seconds):
    with pytest.raises(ConfigurationError, match="load_timeout"):
        following(unship_embedded, load_timeout=seconds)
