"""Play the page of operators' acts on a log of either kind: the situations here, the commands from the page."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.commands import UNSHIP
from tests.fleets import Traffic
from tests.waiting import HANG_S, until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "operate.md"
FEW = "one_false_alarm_per: 1000, worse_by: 0.01"
CONFIG = f"models: {{fraud: {{policy: {{mode: approve}}, {FEW}}}, risk: {{policy: {{mode: act}}, {FEW}}}}}\n"
MODELS = ("fraud", "risk")


def sections() -> dict[str, list[str]]:
    """Return the commands of each section of the page."""
    found = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        lines = [line for block in re.findall(r"^```sh\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
                 for line in block.splitlines()]  # fmt: skip
        if lines:
            found[part.splitlines()[0]] = lines
    return found


class Drill:
    """The folder of an operator, in which the commands run, and the fleets."""

    def __init__(self, folder: Path, traffic: Traffic) -> None:
        self.folder = folder
        self.traffic = traffic
        self.sections = sections()

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page; a machine that is busy gets the time that it needs."""
        environment = {**os.environ, "PATH": f"{UNSHIP.parent}:{os.environ['PATH']}"}
        return subprocess.run(
            ["sh", "-euc", command.replace("--wait 60", f"--wait {HANG_S:g}")],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False,
        )  # fmt: skip

    def play(self, title: str, code: int = 0) -> list[str]:
        """Run the commands of a section; return what each printed, on both streams."""
        shown = []
        for command in self.sections.pop(title):
            done = self.run(command)
            assert done.returncode == code, (command, done.stdout, done.stderr)
            shown.append(done.stdout + done.stderr)
        return shown

    def deploy(self, model: str, version: str, status: str = "live") -> None:
        event = json.dumps({"model": model, "version": version, "status": status})
        done = self.run(f"unship emit deployment '{event}'")
        assert done.returncode == 0, done.stderr

    def status(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("unship --json status").stdout or "{}").get("models", {})
        return dict(found.get(model, {}))

    def decided(self, model: str) -> list[tuple[str, str]]:
        lines = self.run(f"unship --json decisions {model}").stdout.splitlines()
        return [(each["reason"], each["action"]) for each in map(json.loads, lines)]

    def until_decided(self, model: str, reason: str, action: str) -> None:
        until(lambda: (reason, action) in self.decided(model), lambda: f"{self.decided(model)}", 0.5)

    def until_counted(self, model: str, version: str, outcomes: int) -> None:
        def counted() -> bool:
            return bool(self.status(model).get("outcomes", {}).get(version, 0) >= outcomes)

        until(counted, lambda: f"{self.status(model)}", 0.5)

    def begin(self, model: str) -> None:
        """Let v1 answer for a while, then v2 with v1 as holdback."""
        self.deploy(model, "v1")
        until(lambda: self.status(model).get("desired") == "v1", lambda: f"{self.status(model)}")
        self.traffic.serve(model, "v1")
        self.traffic.answer(model, 1_500, 0.05)
        self.until_counted(model, "v1", 1_500)
        self.deploy(model, "v2")
        self.deploy(model, "v1", "holdback")
        self.traffic.serve(model, "v2")


def drill(folder: Path, traffic: Traffic) -> None:
    """Play the whole page; the monitor runs."""
    site = Drill(folder, traffic)
    for model in MODELS:
        site.begin(model)
    traffic.answer("fraud", 1_500, 0.7, holdback="v1")
    site.until_decided("fraud", "TARGET_BETTER", "propose")
    proposed, explained, tried, approved = site.play("Approve a proposal")
    assert "TARGET_BETTER" in proposed
    assert "should be taken back from v2 to v1" in explained
    assert "command   serve v1, quarantine v2, action rollback" in tried
    assert "ctl: every living replica of fraud obeys" in approved
    traffic.serve("fraud", "v1")
    traffic.answer("fraud", 100, 0.05)
    (proof,) = site.play("Prove that replicas obey")
    assert "living replicas: 2 (obeys 2)" in proof
    assert re.search(r"live +v1 +\S+ +100 +100.00 %", proof), proof

    site.play("Hold: nothing happens by itself")
    traffic.answer("risk", 1_500, 0.7, holdback="v1")
    site.until_decided("risk", "HELD", "none")
    assert site.status("risk")["desired"] == "v2"
    site.play("Resume")
    # By itself, as soon as nothing holds it.
    site.until_decided("risk", "TARGET_BETTER", "rollback")
    traffic.serve("risk", "v1")
    site.play("Pin, and unpin")
    assert site.status("risk")["quarantine"] == ["v2"]
    site.play("Release a version from quarantine")
    traffic.serve("risk", "v2")
    assert site.status("risk")["quarantine"] == []
    resumed, again = site.play("Acts in the wrong order", code=1)
    assert "ctl: refused: nothing is on hold" in resumed
    assert "ctl: refused: no proposal is open" in again
    assert site.sections == {}
