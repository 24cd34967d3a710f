"""The log is lost, the replicas are not: the monitor says what is in the way, and an operator's order mends it."""

import shutil
import subprocess
from pathlib import Path

from tests.commands import UNSHIP
from tests.processes import start_monitor
from tests.waiting import HANG_S, until
from unship import Fleet
from unship.testing import UnshipEmbedded

CONFIG = "log: embedded:./log\nmodels: {fraud: {policy: {mode: act}}}\n"


def test_replicas_of_a_lost_log_obey_the_new_one_after_an_operators_order(tmp_path: Path) -> None:
    bench = UnshipEmbedded(tmp_path / "site")
    (tmp_path / "unship.yaml").write_text(CONFIG.replace("./log", "./site/log") + "keys: ./site/keys\n")

    def fleet() -> Fleet:
        loaded: list[str] = []
        return Fleet(
            "fraud", "v1", on_version=loaded.append, log=bench.log, trust=bench.trust, state=tmp_path, replica="r0"
        )

    def unship(*arguments: str) -> None:
        subprocess.run([UNSHIP, *arguments], cwd=tmp_path, check=True, timeout=HANG_S)

    def status() -> bytes:
        command = [str(UNSHIP), "--json", "status"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=HANG_S).stdout

    with fleet() as before:
        bench.command("fraud", "v2", epoch=(0, 1_000, 0))
        until(lambda: before.current.version == "v2")
    shutil.rmtree(bench.folder)
    monitor = start_monitor(tmp_path)
    try:
        until(lambda: "watching" in (tmp_path / "run.log").read_text())
        with fleet() as after:
            unship("emit", "deployment", '{"model": "fraud", "version": "v3", "status": "live"}')
            until(lambda: "unship ctl renew 'fraud'" in (tmp_path / "run.log").read_text())
            assert after.current.version != "v3"
            # The status that acts are checked against is written twice a second.
            until(lambda: b"fraud" in status())
            unship("ctl", "renew", "fraud", "--reason", "the disk is gone")
            until(lambda: after.current.version == "v3")
            assert after.current.epoch is not None
            assert after.current.epoch[0] == 1
    finally:
        monitor.terminate()
        monitor.wait(HANG_S)
