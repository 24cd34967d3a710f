"""What is deployed next to the monitor: rules that fire when they should, panels of metrics that exist, and gates."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from actions.reasons import Reason
from console.web.board import Board
from console.web.metrics import exposition, registry_of
from console.web.vitals import Vitals
from tests.shown.boards import alerts, decision, journal, model, status_records

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))
TESTS = yaml.safe_load((DEPLOY / "prometheus/rules_test.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/unship.json").read_text(encoding="utf-8"))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here; Debian has it: apt-get install prometheus prometheus-alertmanager")
    return found


def shown() -> bytes:
    """Return the metrics of a monitor of which everything is known."""
    board, vitals = Board(lambda: None), Vitals()
    for part in (
        status_records({"m": model()}), journal(decision(Reason.TARGET_BETTER)),
        alerts(("i-1", "firing", 0), ("i-1", "resolved", 1_000), ("i-2", "firing", 0)),
    ):  # fmt: skip
        for record in part:
            board.take(record)
    vitals.beat({"ledger": 1}, caught_up=True)
    vitals.observe("fold", 0.1)
    return exposition(registry_of(board, vitals))


def used() -> list[str]:
    """Return every expression that is deployed."""
    found = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    found += [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return found + [each["expr"] for each in DASHBOARD["annotations"]["list"]]


def test_metrics_that_rules_and_dashboard_ask_for_are_exposed() -> None:
    exposed = set(re.findall(r"^(\w+?)(?:\{| )", shown().decode(), re.MULTILINE))
    asked = {name for expression in used() for name in re.findall(r"\b(?:unship|process)_\w+", expression)}
    assert asked
    assert asked <= exposed, asked - exposed


def test_every_rule_has_a_test_that_fires_it() -> None:
    names = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}
    fired = {case["alertname"] for test in TESTS["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert names == fired


@pytest.mark.parametrize(
    "words", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")], ids=["check", "test"]
)
def test_rules_are_good_and_fire_when_they_should(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [tool("promtool"), *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_configurations_of_prometheus_and_alertmanager_are_good(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "rules.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, tmp_path)
    (tmp_path / "web.token").write_text("token")
    for words in (
        (tool("promtool"), "check", "config", str(tmp_path / "prometheus.yml")),
        (tool("amtool"), "check-config", str(DEPLOY / "prometheus/alertmanager.yml")),
    ):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_metrics_are_as_prometheus_wants_them() -> None:
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=shown(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_panels_have_their_places_and_one_source() -> None:
    places = [tuple(panel["gridPos"][name] for name in "xywh") for panel in DASHBOARD["panels"]]
    for number, (x, y, w, h) in enumerate(places):
        assert x + w <= 24
        for a, b, c, d in places[:number]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/unship.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_gates_ask_for_what_the_web_answers() -> None:
    template: dict[str, Any] = yaml.safe_load((DEPLOY / "gates/argo-analysis-template.yaml").read_text())
    (metric,) = template["spec"]["metrics"]
    assert metric["provider"]["web"]["jsonPath"] == "{$.data}"
    assert "/v1/verdict/{{args.model}}?version={{args.version}}" in metric["provider"]["web"]["url"]
    assert (metric["successCondition"], metric["failureCondition"]) == ("result.ok", 'result.verdict == "DEGRADED"')
    canary: dict[str, Any] = yaml.safe_load((DEPLOY / "gates/flagger-canary.yaml").read_text())
    hooks = {hook["type"]: hook["url"] for hook in canary["spec"]["analysis"]["webhooks"]}
    assert set(hooks) == {"confirm-promotion", "rollback"}
    assert hooks["confirm-promotion"].endswith("&gate=promote")
    assert hooks["rollback"].endswith("&gate=rollback")
