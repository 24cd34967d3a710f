"""Start a monitor of one's own for an example: keys, a log and `unship run` in a temporary folder."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNSHIP = str(Path(sys.executable).with_name("unship"))


@contextmanager
def one_monitor(model: str, holdback: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (log, trust file, deployer's key) of a monitor that may act on a model; remove everything at the end.

    With a share as `holdback`, such as 5%, a version that is replaced goes on answering that part of the requests.
    """
    policy = f"mode: act, holdback: {{share: {holdback}}}" if holdback else "mode: act"
    with tempfile.TemporaryDirectory(prefix="unship-example-") as folder:
        config = Path(folder) / "unship.yaml"
        config.write_text(
            f"models: {{{model}: {{policy: {{{policy}}}, one_false_alarm_per: 1000, worse_by: 0.01}}}}\n",
            encoding="utf-8",
        )
        subprocess.run([UNSHIP, "-q", "keys", "new"], cwd=folder, check=True)
        monitor = subprocess.Popen([UNSHIP, "-q", "run"], cwd=folder, stdout=subprocess.DEVNULL)
        try:
            keys = Path(folder) / "unship-keys"
            yield (
                f"embedded:{os.path.join(folder, 'unship-data')}",
                str(keys / "trust.json"),
                str(keys / "deployer.key"),
            )
        finally:
            monitor.terminate()
            monitor.wait(timeout=30)
