"""Every example runs as a reader would run it, ends by itself, and says in one sentence what happened."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streams.join.signed import read_control
from tests.waiting import HANG_S
from unship.events import Deployment
from unship.keys import new_keys
from unship.log.embedded.log import EmbeddedLog

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


def test_release_step_of_a_pipeline_announces_a_version_with_the_deployers_signature(tmp_path: Path) -> None:
    trust = new_keys(tmp_path / "keys", "prod")
    log = f"embedded:{tmp_path / 'log'}"
    environment = {
        **os.environ,
        "UNSHIP_LOG": log,
        "UNSHIP_TRUST": str(tmp_path / "keys" / "trust.json"),
        "UNSHIP_DEPLOYER_KEY": (tmp_path / "keys" / "deployer.key").read_text(),
        "UNSHIP_REPLICA": f"{sys.executable} -m unship.sidecar.cli",
        "TMPDIR": str(tmp_path),
    }
    command = ["sh", str(EXAMPLES / "ci" / "release.sh"), "fraud", "v42", "v41"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert (done.returncode, done.stdout) == (0, "fraud: v42 was announced as live\n"), done.stderr
    with EmbeddedLog(tmp_path / "log") as opened:
        (record,) = opened.read("deployments", 0)
    event, signer = read_control("deployments", record.value, record.headers, trust, record.append_ts)
    assert isinstance(event, Deployment)
    assert (event.version, event.previous, signer and signer.role) == ("v42", "v41", "deployer")
    assert {path.name for path in tmp_path.iterdir()} == {"keys", "log"}


def test_every_example_is_run() -> None:
    """The scripts of the folders of data made what the demo and a test replay; they need a download, and are run by
    hand."""
    found = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".sh")}
    # Those that need a broker are run by the tests of Kafka; the step of a pipeline has a test of its own.
    elsewhere = {"one_monitor.py", "verify_command.py", "faust_agent/app.py", "ci/release.sh"}
    assert {name for name in found if not name.startswith(("census/", "flights/"))} - elsewhere == {*RUN}
