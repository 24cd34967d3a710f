"""A stolen controller's key is taken out of use by the commands of a page of the documentation, as they are there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from actions.checkpoints import CHECKPOINT_KEY
from tests.commands import UNSHIP
from tests.processes import CONFIG, monitor, records, status, unship
from tests.waiting import HANG_S, until
from unship import Fleet
from unship.commands import Command, encode_command
from unship.events import INTEGER_MAX
from unship.keys import load_private_key
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.link import wall_ms
from unship.signing import COMMAND_TYPE, sign

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "stolen-key.md"
REPLICAS = ("r-1", "r-2", "r-3")


def commands_of(page: str) -> list[str]:
    """Return the commands of the page's numbered steps, each block as one script."""
    steps = page.split("\n## ", maxsplit=1)[0]
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", steps, re.DOTALL | re.MULTILINE)
    return ["\n".join(line.strip() for line in block.splitlines()) for block in blocks]


def test_page_of_commands_ends_with_every_replica_on_the_honest_version(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    stolen = load_private_key(tmp_path / "unship-keys" / "controller.key")
    log = f"embedded:{tmp_path / 'unship-data'}"
    fleets = []
    for name in REPLICAS:
        (tmp_path / "replicas" / name).mkdir(parents=True)
        trust = shutil.copy(tmp_path / "unship-keys" / "trust.json", tmp_path / "replicas" / name / "trust.json")
        fleets.append(Fleet("fraud", "v0", on_version=str, log=log, trust=trust, replica=name))

    def all_serve(version: str) -> None:
        until(lambda: all(fleet.current.version == version for fleet in fleets), lambda: f"{fleets[0].stats}")

    try:
        with monitor(tmp_path):
            for fleet in fleets:
                fleet.start()
            honest = '{"model": "fraud", "version": "v1", "status": "live"}'
            assert unship(tmp_path, "emit", "deployment", honest).returncode == 0
            all_serve("v1")
            with EmbeddedLog(tmp_path / "unship-data") as opened:
                opened.append("control", [commanded_by_the_thief(stolen)])
            all_serve("evil")
            environment = {**os.environ, "PATH": f"{UNSHIP.parent}:{os.environ['PATH']}"}
            *commands, converged = commands_of(PAGE.read_text(encoding="utf-8"))
            for command in commands:
                done = subprocess.run(
                    ["sh", "-euc", command],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    timeout=HANG_S,
                    check=False,
                )
                assert done.returncode == 0, (command, done.stdout, done.stderr)
            all_serve("v1")
            assert converged == "unship status"
            until(lambda: unship(tmp_path, "status").returncode == 0, lambda: f"{status(tmp_path)}")
            assert {fleet.current.epoch and fleet.current.epoch[0] for fleet in fleets} == {1}
            # The thief goes on, and so do the releases.
            with EmbeddedLog(tmp_path / "unship-data") as opened:
                opened.append("control", [commanded_by_the_thief(stolen)])
            newer = '{"model": "fraud", "version": "v2", "status": "live"}'
            assert unship(tmp_path, "emit", "deployment", newer).returncode == 0
            all_serve("v2")
    finally:
        for fleet in fleets:
            fleet.close()
    with EmbeddedLog(tmp_path / "unship-data") as opened:
        assert [record for record in records(opened, "decisions") if record.key != CHECKPOINT_KEY] == []


def commanded_by_the_thief(key: object) -> Message:
    now = wall_ms()
    command = Command(
        model="fraud", epoch=(INTEGER_MAX, 0, 0), serve="evil", quarantine=(), action="deploy", issued_ts=now,
        not_after_ts=now + 600_000, audience="default",
    )  # fmt: skip
    value = encode_command(command)
    return Message(value, b"fraud", tuple(sign(value, key, COMMAND_TYPE)))  # type: ignore[arg-type]
