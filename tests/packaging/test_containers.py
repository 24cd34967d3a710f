"""The container files: every name that they use exists, nothing runs as root, and what runs says whether it is well."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from console.cli import main as command_line
from streams.config.parse import parse
from tests.kafka.jars import version
from unship.log.kafka.settings import parse_log

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
services = pytest.mark.parametrize("name", sorted(SERVICES))


def compose_command():
    """Return how compose is called here, or None; the first generation of it reads another format."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        return None
    return ["docker", "compose"]


def waits(service):
    return service.get("depends_on", {})


@services
def test_service_has_a_health_check_unless_others_wait_for_its_end(name):
    check = SERVICES[name]["healthcheck"]
    conditions = {waits(other).get(name, {}).get("condition") for other in SERVICES.values()} - {None}
    if check.get("disable"):
        assert conditions == {"service_completed_successfully"}
        assert SERVICES[name]["restart"] == "no"
    else:
        assert check["test"][0] in ("CMD", "CMD-SHELL")
        assert {"interval", "timeout", "retries", "start_period"} <= set(check)
        assert conditions <= {"service_healthy"}


@services
def test_service_is_started_together_with_all_it_waits_for(name):
    for other in waits(SERVICES[name]):
        assert set(SERVICES[name]["profiles"]) <= set(SERVICES[other]["profiles"]), other


@services
def test_service_has_a_pinned_image_and_is_seen_by_this_machine_alone(name):
    image, _, tag = SERVICES[name]["image"].partition(":")
    assert tag not in ("", "latest"), image
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:"), port
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.partition(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    for config in SERVICES[name].get("configs", ()):
        assert config["source"] in COMPOSE["configs"]


def test_profiles_are_those_that_the_file_explains():
    assert {profile for service in SERVICES.values() for profile in service["profiles"]} == {"core", "ui", "metrics"}


def test_prometheus_asks_only_what_is_started_with_it_and_listens_there():
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = [target for job in jobs for entry in job["static_configs"] for target in entry["targets"]]
    assert targets
    for target in targets:
        name, _, port = target.partition(":")
        # The monitor is started by a profile of its own, and Prometheus waits for nothing of it.
        assert set(SERVICES["prometheus"]["profiles"]) <= set(SERVICES[name]["profiles"]) or name == "monitor"
        assert any(word in (f"--web.listen-address=:{port}", f"0.0.0.0:{port}") for word in SERVICES[name]["command"])


def test_broker_is_the_one_that_the_tests_run_against():
    assert SERVICES["broker"]["image"] == f"apache/kafka:{version()}"


def test_monitor_and_fleet_use_the_same_broker_and_a_good_configuration():
    config = parse((ROOT / "deploy/unship.yaml").read_text(encoding="utf-8"))
    (address,) = parse_log(config.log)
    assert f"INSIDE://{address}" in SERVICES["broker"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert SERVICES["fleet"]["environment"]["UNSHIP_LOG"] == config.log
    assert config.defaults.mode == "observe"


def test_commands_in_the_files_exist():
    entry = re.search(r'^ENTRYPOINT \["unship", "-c", "([^"]+)"\]$', DOCKERFILE, re.MULTILINE)
    assert entry is not None
    assert SERVICES["monitor"]["volumes"] == [f"./deploy/unship.yaml:{entry[1]}:ro"]
    (default,) = re.findall(r'^CMD \["(\w+)"\]$', DOCKERFILE, re.MULTILINE)
    assert default in command_line.commands
    (health,) = re.findall(r"HEALTHCHECK .*\\\n +CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    for words in (yaml.safe_load(health), SERVICES["monitor"]["healthcheck"]["test"][1:]):
        assert words == ["unship", "-q", "-c", entry[1], "check", "--timeout", "10"]
    assert SERVICES["monitor"]["command"][0] == default
    group, name = SERVICES["topics"]["command"]
    topics = command_line.commands[group]
    assert isinstance(topics, click.Group)
    assert name in topics.commands


def test_image_runs_as_nobody_and_holds_no_tools():
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3, "the comment, the stage that builds, the stage that runs"
    last = stages[-1]
    (user,) = re.findall(r"^USER (\d+)$", last, re.MULTILINE)
    assert int(user) >= 1_000
    assert "pip" not in last
    assert last.index("USER") < last.index("ENTRYPOINT")


def test_everything_that_the_image_copies_is_there_and_let_through():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [word for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    assert {"requirements.lock", "sdk", "streams", "detectors", "actions", "console"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name


def test_constraints_that_the_image_makes_are_the_locks_versions():
    (expression,) = re.findall(r"sed -n '([^']+)' requirements\.lock", DOCKERFILE)
    done = subprocess.run(
        ["sed", "-n", expression, ROOT / "requirements.lock"], capture_output=True, text=True, check=True
    )
    pinned = done.stdout.split()
    assert len(pinned) == len(re.findall(r"^[A-Za-z0-9].*==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert all(re.fullmatch(r"[\w.\-\[\],]+==[\w.+!]+", each) for each in pinned)


def test_fleet_emits_what_the_monitor_reads(tmp_path):
    environment = {"UNSHIP_LOG": f"embedded:{tmp_path / 'log'}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(ROOT / "deploy/fleet.py"), "--answers", "40"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dropped={}" in done.stdout
    assert (tmp_path / "alive").exists()


def test_compose_accepts_the_file():
    command = compose_command()
    if command is None:
        pytest.skip("there is no docker compose here")
    for profiles in (["core"], ["ui"], ["metrics"], ["core", "ui", "metrics"]):
        words = [word for profile in profiles for word in ("--profile", profile)]
        done = subprocess.run([*command, *words, "config", "--quiet"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
