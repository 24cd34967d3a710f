"""Test an application against its monitor without one: a pytest fixture with a log of its own and the keys to it.

The distribution `unship` brings the fixture as a plugin of pytest; a test only names it:

    def test_my_service_obeys(unship_embedded):
        with Fleet("fraud", "v42", on_version=load, log=unship_embedded.log, trust=unship_embedded.trust) as fleet:
            unship_embedded.command("fraud", "v41")
            assert fleet.wait_for("v41")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from unship.events import Epoch, Event
    from unship.log.embedded.log import Record
    from unship.rejections import Rejection

COMMAND_MS: Final = 3_600_000
"""How long a command of a test may be obeyed after it was issued."""


class UnshipEmbedded:
    """Play the monitor in a test: publish signed commands, and read what replicas and label sources wrote.

    Attributes:
        log: The address to give to `Fleet` and `Feedback`.
        trust: The trust file to give to `Fleet`.
        keys: The folder with the private keys too.
    """

    def __init__(self, folder: Path) -> None:
        """Make keys and an empty log in a folder, which must be missing or empty."""
        from unship.keys import CONTROLLER_FILE, TRUST_FILE, load_private_key, new_keys
        from unship.log.embedded.log import EmbeddedLog

        self.keys = folder / "keys"
        self.folder = folder / "log"
        self.log = f"embedded:{self.folder}"
        self.trust = self.keys / TRUST_FILE
        self._audience = new_keys(self.keys, audience="test").audience
        self._private_key = load_private_key(self.keys / CONTROLLER_FILE)
        self._epoch: Epoch = (1, 0, 0)
        self._embedded = EmbeddedLog(self.folder, fsync=False)

    def command(
        self,
        model: str,
        version: str,
        *,
        epoch: Epoch | None = None,
        artifact: str | None = None,
        quarantine: Iterable[str] = (),
        action: str = "rollback",
        audience: str | None = None,
        not_after_ts: int | None = None,
        shares: dict[str, float] | None = None,
        period_epoch: Epoch | None = None,
    ) -> Epoch:
        """Publish a signed command that a version shall serve; return its epoch, by default the next higher one.

        Args:
            model: Whom it is for.
            version: What shall serve.
            epoch: Another epoch, such as one published before.
            artifact: The digest of the version.
            quarantine: Versions that must not serve.
            action: What the command calls itself.
            audience: Another audience than that of the trust file.
            not_after_ts: When it expires, in milliseconds since the epoch; in an hour if absent.
            shares: What part of the units another version answers: {"v41": 0.05}.
            period_epoch: The epoch by which units are dealt out; with shares, that of this command if absent.
        """
        from msgspec import structs

        from unship.commands import Command, Quarantined, encode_command
        from unship.signing import COMMAND_TYPE, sign

        if epoch is None:
            epoch = (self._epoch[0], self._epoch[1] + 1, 0)
        self._epoch = max(self._epoch, epoch)
        now_ms = time.time_ns() // 1_000_000  # noqa: TID251
        command = Command(
            model=model,
            epoch=epoch,
            serve=version,
            artifact=artifact,
            quarantine=tuple(Quarantined(name) for name in quarantine),
            action=action,
            issued_ts=now_ms,
            not_after_ts=now_ms + COMMAND_MS if not_after_ts is None else not_after_ts,
            audience=self._audience if audience is None else audience,
        )
        if shares:
            command = structs.replace(command, shares=shares, period_epoch=period_epoch or epoch)
        value = encode_command(command)
        self.publish(model, value, sign(value, self._private_key, COMMAND_TYPE))
        return epoch

    def publish(self, model: str, value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()) -> int:
        """Publish any bytes as a control record of a model, as a forger could; return the offset."""
        from unship.log.embedded.log import Message

        (offset,) = self._embedded.append("control", [Message(value, model.encode(), tuple(headers))])
        return offset

    def records(self, topic: str) -> list[Record]:
        """Read all records of any topic."""
        records: list[Record] = []
        position = self._embedded.first(topic)
        while found := self._embedded.read(topic, position):
            records += found
            position = found[-1].offset + 1
        return records

    def events(self, topic: str) -> list[Event | Rejection]:
        """Read and decode all events of a topic: `predictions`, `feedback`, `deployments`, `operator` or `acks`."""
        from unship.log.packed import decode_values
        from unship.topics import EVENT_TOPICS

        kind = EVENT_TOPICS[topic]
        return [event for record in self.records(topic) for event in decode_values(kind, record.value)]

    def until(
        self, topic: str, met: Callable[[list[Event | Rejection]], bool], timeout_s: float = 10.0
    ) -> list[Event | Rejection]:
        """Wait until the events of a topic meet a condition, and return them.

        Raises:
            AssertionError: They did not in time; the message shows them.
        """
        deadline = time.monotonic() + timeout_s  # noqa: TID251
        while True:
            position = self._embedded.end(topic)
            events = self.events(topic)
            if met(events):
                return events
            left = deadline - time.monotonic()  # noqa: TID251
            if left <= 0 or not self._embedded.wait({topic: position}, left):
                raise AssertionError(f"not met within {timeout_s:g} s by the {len(events)} events of {topic}: {events}")

    def close(self) -> None:
        """Close the log; the folder stays."""
        self._embedded.close()


@pytest.fixture
def unship_embedded(tmp_path: Path) -> Iterator[UnshipEmbedded]:
    """Yield an empty embedded log with keys, in a folder of this test only."""
    folder = tmp_path / "unship"
    folder.mkdir(mode=0o700)
    bench = UnshipEmbedded(folder)
    yield bench
    bench.close()
