"""Every example runs as a reader would run it, ends by itself, and says in one sentence what happened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import HANG_S

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RUN = {
    "plain_loop.py": ([sys.executable], "v41 serving again"),
    "batch_job.py": ([sys.executable], "counted 3000 labelled answers"),
    "fastapi_app.py": ([sys.executable], "v41 answering again"),
    "sidecar_curl/run.sh": (["sh"], "was told to serve v41, and does"),
}


@pytest.mark.parametrize("name", RUN)
def test_example_ends_well_with_one_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    if name.startswith("sidecar_curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    program, expected = RUN[name]
    done = subprocess.run(
        [*program, str(EXAMPLES / name)],
        cwd=tmp_path,
        env={**os.environ, "UNSHIP_BIN": str(Path(sys.executable).parent), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_run() -> None:
    """The scripts of the census folder made the data of the demo; they need a download and are run by hand."""
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".sh")}
    # Those that need a broker are run by the tests of Kafka.
    elsewhere = {"one_monitor.py", "verify_command.py", "faust_agent/app.py"}
    assert {name for name in found if not name.startswith("census/")} - elsewhere == {*RUN}
