"""The program `unship`, run to its end as somebody at a terminal runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.waiting import HANG_S

UNSHIP = Path(sys.executable).with_name("unship")


def unship(
    *arguments: object, stdin: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a folder."""
    command = [str(UNSHIP), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=HANG_S, cwd=cwd, check=False)
