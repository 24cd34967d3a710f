"""What the copier does where copying fails."""

import asyncio
import logging
from typing import Any

import pytest

from streams.config.parse import parse
from streams.kafka.clients import Access
from streams.kafka.copier import Copier, Place
from unship.topics import TopicNames

ACCESS = Access({"bootstrap_servers": ["nowhere:1"]}, TopicNames("t."))


class Failing(Copier):
    """Fails at first as nobody foresaw."""

    copied = 0

    async def start(self) -> None:
        pass

    async def copy(self, place: Place, value: bytes | None, headers: Any) -> None:
        self.copied += 1
        if self.copied == 1:
            raise AssertionError("Unrecognized partition")


def test_record_whose_copy_fails_in_any_way_is_copied_again(caplog: pytest.LogCaptureFixture) -> None:
    copier = Failing(ACCESS, parse(""), lambda: None)
    with caplog.at_level(logging.WARNING, "unship"):
        asyncio.run(copier.copy_surely(Place("deployments", 0, 0, 0), b"{}", ()))
    assert copier.copied == 2
    assert "Unrecognized partition" in caplog.text
