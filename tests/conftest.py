"""Settings that hold for every test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.waiting import HANG_S
from unship.testing import UnshipEmbedded

# No deadline in either profile: how long an example takes depends on the machine, not on the code under test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In continuous integration the same examples every time: a failure there is one that anybody can repeat.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

#: Tests that wait for processes and brokers more than they work; others run meanwhile.
WAITING = ("kafka", "kills", "integration", "demos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait: one of them begun last would be all that runs for a minute."""
    items.sort(key=lambda item: not any(folder in item.path.parts for folder in WAITING))


class PatientEmbedded(UnshipEmbedded):
    """The library's stand-in for a monitor, with the tests' own limit for waiting."""

    def until(self, topic: str, met: Callable[[list[Any]], bool], timeout_s: float = HANG_S) -> list[Any]:
        """Wait until the events of a topic meet a condition, and return them."""
        return super().until(topic, met, timeout_s)


@pytest.fixture
def unship_embedded(tmp_path: Path) -> Iterator[PatientEmbedded]:
    """Give what the library's own fixture gives, with the tests' own limit for waiting."""
    folder = tmp_path / "unship"
    folder.mkdir(mode=0o700)
    bench = PatientEmbedded(folder)
    yield bench
    bench.close()
