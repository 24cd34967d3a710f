"""The program `unship`, run to its end as somebody at a terminal runs it; and inside a test, beside a monitor."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from actions.reconcile import Signer
from console.cli import main
from console.keyring import Keyring
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.waiting import HANG_S
from unship.log.embedded.log import EmbeddedLog
from unship.log.link import wall_ms

UNSHIP = Path(sys.executable).with_name("unship")


def unship(
    *arguments: object, stdin: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a folder."""
    command = [str(UNSHIP), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=HANG_S, cwd=cwd, check=False)


class MonitorAndShell:
    """A monitor of the log in a folder with two deployed versions, of which v2 serves, and a shell beside it."""

    def __init__(self, folder: Path, config: str) -> None:
        self.log = EmbeddedLog(folder / "log", fsync=False)
        signer = Keyring(folder / "keys", lambda text: None).signer
        assert isinstance(signer, Signer)
        self.live = EmbeddedMonitor(self.log, parse(config), wall_ms, signer)
        for version in ("v1", "v2"):
            event = json.dumps({"model": "fraud", "version": version, "status": "live"})
            assert self.unship("emit", "deployment", event).exit_code == 0
            self.deployed()
        # With it the status is written, however short ago that was done.
        self.live.save_snapshot()

    def deployed(self) -> None:
        """Let the monitor read a deployment."""
        self.live.step()

    def unship(self, *arguments: str) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(main, [*arguments])
