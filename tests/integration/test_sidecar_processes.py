"""`unship-replica` as a process: a replica that is a shell script with curl obeys the monitor, as others do."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from tests.processes import CONFIG, monitor, records, status_when, unship
from tests.waiting import HANG_S, until
from unship import Feedback, Fleet
from unship.commands import Command, decode_command
from unship.log.embedded.log import EmbeddedLog, Record
from unship.replica.fence import Serving
from unship.testing import UnshipEmbedded

REPLICA = [sys.executable, "-m", "unship.sidecar.cli"]
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

# The replica in another language: it asks what to serve with the tag of what it knows, switches, and confirms.
SCRIPT = """
set -eu
base=$1
tag='"0.0.0"'
serving=v42
while [ "$serving" != v41 ]; do
    curl -sS --max-time 60 -D headers -H "If-None-Match: $tag" "$base/v1/desired?wait=20" > desired
    grep -q '^HTTP/1.1 200' headers || continue
    tag=$(tr -d '\\r' < headers | sed -n 's/^ETag: //p')
    serving=$(sed 's/.*"version":"\\([^"]*\\)".*/\\1/' desired)
    epoch=$(sed 's/.*"epoch":\\(\\[[^]]*\\]\\).*/\\1/' desired)
    curl -sS -X PUT -d "{\\"version\\":\\"$serving\\",\\"epoch\\":$epoch}" "$base/v1/ack" > acknowledged || true
done
curl -sS -d '{"type":"prediction","id":"last","output":1}' "$base/v1/events"
"""


def run(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*REPLICA, *arguments], input=stdin, capture_output=True, timeout=HANG_S, check=False)


@contextmanager
def sidecar(log: str, trust: object, *more: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    command = [*REPLICA, "sidecar", "--model", "fraud", "--version", "v42", "--log", log, "--trust", str(trust)]
    process = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--replica", "r-c", *more], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=HANG_S)


@needs_curl
def test_shell_script_with_curl_is_taken_back_with_the_fleet(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    log, trust = f"embedded:{tmp_path / 'unship-data'}", tmp_path / "unship-keys" / "trust.json"
    rng = np.random.default_rng(5)
    with monitor(tmp_path), sidecar(log, trust) as (process, base):
        for version, role in (("v41", "live"), ("v42", "live"), ("v41", "holdback")):
            event = json.dumps({"model": "fraud", "version": version, "status": role})
            keys = str(tmp_path / "unship-keys")
            assert run("emit", "--keys", keys, "deployment", event, "--log", log).returncode == 0
        _until_commanded(tmp_path / "unship-data", "v42")
        script = subprocess.Popen(["sh", "-c", SCRIPT, "sh", base], cwd=tmp_path, stdout=subprocess.PIPE)
        with Fleet("fraud", "v42", log=log, trust=trust, replica="r-1") as fleet, Feedback(log=log) as labels:
            answered = 0
            while script.poll() is None:
                for _ in range(40):
                    holdback = rng.random() < 0.3
                    serving = Serving("v41") if holdback else fleet.current
                    decayed = answered > 2_000 and serving.version == "v42"
                    id_ = fleet.predicted(1, role="holdback" if holdback else "live", as_=serving)
                    labels.truth(id_, 0 if rng.random() < (0.6 if decayed else 0.05) else 1)
                    answered += 1
                fleet.flush(HANG_S)
                labels.flush(HANG_S)
            out, _ = script.communicate(timeout=HANG_S)
            assert json.loads(out) == {"accepted": 1}, (tmp_path / "run.log").read_text()

            def reached(shown: dict[str, Any]) -> bool:
                replica = shown["models"]["fraud"]["replicas"]["r-c"]
                return (replica["version"], replica["stage"]) == ("v41", "serving")

            replicas = status_when(tmp_path, reached)["models"]["fraud"]["replicas"]
            assert replicas["r-c"]["epoch"] == list(fleet.current.epoch or ())
            assert answered > 2_000
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=HANG_S) == 0
    with EmbeddedLog(tmp_path / "unship-data") as opened:
        last = [record for record in records(opened, "predictions") if record.key == b"last"]
    assert [json.loads(record.value or b"")["version"] for record in last] == ["v41"]


def _until_commanded(folder: Path, version: str) -> None:
    with EmbeddedLog(folder) as log:

        def commanded() -> bool:
            newest = log.latest("control").get(b"fraud")
            command = None if newest is None else decode_command(newest.value)
            return isinstance(command, Command) and command.serve == version

        until(commanded, lambda: f"no command to serve {version}")


def test_sidecar_that_is_started_again_takes_its_file_back_to_the_obeyed_version(
    unship_embedded: UnshipEmbedded, tmp_path: Path
) -> None:
    path = tmp_path / "version"
    with sidecar(unship_embedded.log, unship_embedded.trust, "--file", str(path)) as (process, _):
        epoch = unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: (acks[-1].stage, acks[-1].epoch) == ("serving", epoch))  # type: ignore[union-attr]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=HANG_S) == 0
    path.write_text("v42\n")
    with sidecar(unship_embedded.log, unship_embedded.trust, "--file", str(path)) as (_, base):
        assert base.startswith("http://127.0.0.1:")
        assert path.read_text() == "v41\n"


def test_sidecar_runs_its_command_and_ends_quietly_while_one_hangs(
    unship_embedded: UnshipEmbedded, tmp_path: Path
) -> None:
    command = f"sh -c 'echo $0 > {tmp_path}/started; exec tail -f /dev/null' {{version}}"
    with sidecar(unship_embedded.log, unship_embedded.trust, "--exec", command) as (process, _):
        unship_embedded.command("fraud", "v41")
        until((tmp_path / "started").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=HANG_S) == 0
    assert (tmp_path / "started").read_text() == "v41\n"


def test_sidecar_serves_what_its_command_switched_to_and_keeps_it_where_the_command_fails(
    unship_embedded: UnshipEmbedded, tmp_path: Path
) -> None:
    def said(acks: list[Any]) -> tuple[str, str | None, str | None]:
        return acks[-1].stage, acks[-1].serving, acks[-1].code

    command = f"sh -c 'test $0 = v41 && echo $0 > {tmp_path}/serving' {{version}}"
    with sidecar(unship_embedded.log, unship_embedded.trust, "--exec", command) as (_, base):
        unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: said(acks) == ("serving", "v41", None), HANG_S)
        assert (tmp_path / "serving").read_text() == "v41\n"
        unship_embedded.command("fraud", "v40")
        unship_embedded.until("acks", lambda acks: said(acks) == ("refused", "v41", "LOAD_FAILED"), HANG_S)
        with urlopen(f"{base}/healthz", timeout=HANG_S) as health:
            assert json.load(health)["serving"] == "v41"


def test_taken_address_is_said_in_one_line(unship_embedded: UnshipEmbedded) -> None:
    with sidecar(unship_embedded.log, unship_embedded.trust) as (_, base):
        done = run(
            *("sidecar", "--model", "m", "--version", "v", "--log", unship_embedded.log),
            *("--trust", str(unship_embedded.trust), "--listen", base.removeprefix("http://")),
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"cannot listen there" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--listen", "8701"],
        ["--listen", "127.0.0.1:99999"],
        ["--exec", "echo 'open"],
        ["--exec", "x", "--exec-timeout", "0"],
        ["--file", "no/such/folder/version"],
        ["--trust", "no\x1b[2Jsuch.json"],
        ["--log", "redis://localhost"],
    ],
)
def test_wrong_option_is_said_in_one_line_without_control_characters(
    unship_embedded: UnshipEmbedded, options: list[str]
) -> None:
    given = ["--log", unship_embedded.log, "--trust", str(unship_embedded.trust), "--listen", "127.0.0.1:0"]
    done = run("sidecar", "--model", "fraud", "--version", "v42", *given, *options)
    assert (done.returncode, done.stderr.count(b"\n"), b"\x1b" in done.stderr) == (2, 1, False)


def test_emit_appends_what_the_monitor_takes_and_refuses_the_rest(unship_embedded: UnshipEmbedded) -> None:
    assert run("emit", "feedback", '{"id":"p-1","truth":1}', "--log", unship_embedded.log).returncode == 0
    assert run("emit", "feedback", "-", "--log", unship_embedded.log, stdin=b'{"id":"p-2","truth":1}').returncode == 0
    assert [event.id for event in unship_embedded.events("feedback")] == ["p-1", "p-2"]  # type: ignore[union-attr]
    done = run("emit", "prediction", '{"id":""}', "--log", unship_embedded.log)
    assert (done.returncode, b"would be rejected: BAD_EVENT" in done.stderr) == (2, True)
    done = run("emit", "prediction", "-", "--log", unship_embedded.log, stdin=b" " * 100_000)
    assert (done.returncode, b"TOO_LARGE" in done.stderr) == (2, True)


def test_verify_says_good_or_the_code_of_the_refusal(unship_embedded: UnshipEmbedded, tmp_path: Path) -> None:
    unship_embedded.command("fraud", "v41")
    unship_embedded.command("fraud", "v41", audience="elsewhere")
    unship_embedded.command("fraud", "v41", not_after_ts=1)
    good, foreign, late = unship_embedded.records("control")
    trust = str(unship_embedded.trust)

    def verdict(record: Record, *more: str, value: bytes | None = None) -> tuple[int, str]:
        headers = [f"--header={name}:{text.decode()}" for name, text in record.headers]
        done = run("verify", "--trust", trust, *headers, *more, stdin=value or record.value or b"")
        return done.returncode, done.stdout.decode().strip()

    assert verdict(good) == (0, "good")
    assert verdict(good, "--model", "fraud") == (0, "good")
    assert verdict(good, "--model", "credit") == (1, "WRONG_AUDIENCE")
    assert verdict(foreign) == (1, "WRONG_AUDIENCE")
    assert verdict(late) == (1, "EXPIRED")
    assert verdict(good, value=(good.value or b"") + b"\n") == (1, "BAD_SIGNATURE")
    assert verdict(good, value=b"x" * 100_000) == (1, "UNSUPPORTED_SCHEMA")
    files = tmp_path / "value", tmp_path / "headers"
    files[0].write_bytes(good.value or b"")
    files[1].write_text("".join(f"{name}: {text.decode()}\n" for name, text in good.headers))
    done = run("verify", "--trust", trust, "--value", str(files[0]), "--headers", str(files[1]))
    assert (done.returncode, done.stdout) == (0, b"good\n")
    assert run("verify", "--trust", trust, "--value", str(tmp_path / "none")).returncode == 2
