"""A monitor with a real Prometheus and a real Alertmanager: an incident is one alert there, and it resolves."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.commands import UNSHIP
from tests.waiting import HANG_S, until
from tests.worlds.busy import busy_lines
from unship.codec import decode_line, encode_line
from unship.events import Deployment, Feedback, Prediction
from unship.log.embedded.log import EmbeddedLog, Message

RULES = Path(__file__).parents[2] / "deploy/prometheus/rules.yml"
TOPIC = {Prediction: "predictions", Feedback: "feedback", Deployment: "deployments"}


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"there is no {names[0]} here; Debian has it: apt-get install prometheus prometheus-alertmanager")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def got(url: str) -> Any:
    """Return what a URL answers, None while nothing does."""
    try:
        with urlopen(url, timeout=HANG_S) as answer:
            return json.load(answer)
    except (URLError, ConnectionError, ValueError):
        return None


@contextmanager
def running(folder: Path, name: str, *command: str) -> Iterator[None]:
    """Run a process while the block runs; what it prints is in a file of its name."""
    with (folder / f"{name}.log").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait(HANG_S)


def append(log: EmbeddedLog, *events: Prediction | Feedback | Deployment) -> None:
    for event in events:
        key = event.model if isinstance(event, Deployment) else event.id
        log.append(TOPIC[type(event)], [Message(encode_line(event), key.encode())])


def decay(log: EmbeddedLog, folder: Path, status: str) -> None:
    """Let a version decay until an incident is open, in pieces that the monitor decides about one by one."""
    lines = [decode_line(line) for line in busy_lines(1)]
    for begin in range(0, len(lines), 200):
        events = [each for each in lines[begin : begin + 200] if isinstance(each, Prediction | Feedback | Deployment)]
        append(log, *events)
        until(lambda: _is_read(status), (folder / "run.log").read_text)
        if got(status)["incidents"]:
            return


def _is_read(status: str) -> bool:
    found = got(status)
    return found is not None and bool(found["monitor"]["lag"]) and not any(found["monitor"]["lag"].values())


def alerts_of(alertmanager: str) -> list[dict[str, str]]:
    return [each["labels"] for each in got(f"{alertmanager}/api/v2/alerts?active=true") or []]


def test_incident_fires_once_in_alertmanager_and_resolves_once_replicas_obey_a_switch(tmp_path: Path) -> None:
    prometheus, alertmanager = program("prometheus"), program("prometheus-alertmanager", "alertmanager")
    ports = {name: free_port() for name in ("web", "prometheus", "alertmanager")}
    web, am = (f"http://127.0.0.1:{ports[name]}" for name in ("web", "alertmanager"))
    (tmp_path / "unship.yaml").write_text(
        f"defaults: {{one_false_alarm_per: 2000, policy: {{mode: observe}}}}\nalerts: [{{alertmanager: '{am}'}}]\n"
    )
    (tmp_path / "alertmanager.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    # Two names of one monitor are two instances, as two workers are.
    targets = f"['127.0.0.1:{ports['web']}', 'localhost:{ports['web']}']"
    (tmp_path / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{RULES}']\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{ports['alertmanager']}']}}]}}]}}\n"
        f"scrape_configs: [{{job_name: unship, static_configs: [{{targets: {targets}}}]}}]\n"
    )
    with ExitStack() as stack:
        for name, command in (
            ("am", [alertmanager, "--config.file=alertmanager.yml", "--cluster.listen-address=", "--storage.path=am",
                    f"--web.listen-address=127.0.0.1:{ports['alertmanager']}"]),
            ("prometheus", [prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
                            f"--web.listen-address=127.0.0.1:{ports['prometheus']}"]),
            ("run", [str(UNSHIP), "run", "--web", f"127.0.0.1:{ports['web']}"]),
        ):  # fmt: skip
            stack.enter_context(running(tmp_path, name, *command))
        status = f"{web}/v1/status"
        until(lambda: got(f"{web}/readyz"), (tmp_path / "run.log").read_text)
        log = stack.enter_context(EmbeddedLog(tmp_path / "unship-data"))
        decay(log, tmp_path, status)
        (incident,) = got(status)["incidents"]
        assert (incident["version"], incident["action"], incident["to"]) == ("v2", "observe", "v1")
        expected = {"UnshipIncident", "UnshipModelDegraded"}
        until(lambda: {each["alertname"] for each in alerts_of(am)} >= expected, lambda: alerts_of(am))
        found = [each for each in alerts_of(am) if each["alertname"] in expected]
        assert len(found) == 2, found
        assert {(each["model"], each["version"], each["severity"]) for each in found} == {("m", "v2", "page")}
        assert [each["incident"] for each in found if "incident" in each] == [incident["incident"]]
        verdict = got(f"{web}/v1/verdict/m?version=v2")["data"]
        assert (verdict["verdict"], verdict["ok"]) == ("DEGRADED", False)
        append(log, Deployment(model="m", version="v1", status="live"))
        until(lambda: got(f"{web}/v1/verdict/m")["data"]["version"] == "v1")
        for number in range(3):
            append(log, Prediction(id=f"after-{number}", model="m", version="v1", output=1, replica=f"r{number}"))
        until(lambda: not got(status)["incidents"], lambda: json.dumps(got(status)))
        until(lambda: not expected & {each["alertname"] for each in alerts_of(am)}, lambda: alerts_of(am))
