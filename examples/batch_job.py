"""Score a table in a nightly job, and send the truths in another: no server, no version to switch while it runs.

A batch job obeys between runs: it asks once, as it starts, which version to score with. Run it with the project's
Python: `.venv/bin/python examples/batch_job.py`. It starts a monitor of its own on a log in a temporary folder.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from one_monitor import UNSHIP, one_monitor

from unship import Feedback, Fleet

ROWS = 1_500
DEADLINE_S = 15.0


def score(log: str, trust: str, key: str, night: int) -> str:
    """Score all rows of a night with the version that is desired as the job starts, and return it."""
    # The name survives the job, so that a later night cannot obey an older command than an earlier one did.
    with Fleet("churn", "v7", on_version=lambda version: None, log=log, trust=trust, replica="nightly") as fleet:
        now = fleet.current
        if night == 0:
            fleet.deployed("live", key=key)
        for row in range(ROWS):
            fleet.predicted(row % 2 == 0, id=f"night-{night}", row=row, as_=now)
            if row % 500 == 499:
                # The queue holds 10,000 events: a job that is faster than the log waits for it here.
                fleet.flush(timeout_s=30.0)
    return now.version


def label(log: str, night: int, rng: np.random.Generator) -> None:
    """Send the truths of a night, which became known later."""
    with Feedback(log, source="crm", model="churn") as labels:
        for row in range(ROWS):
            labels.truth(f"night-{night}", (row % 2 == 0) != (rng.random() < 0.1), row=row)


def outcomes(log: str) -> int:
    """Return how many labelled answers the monitor has counted."""
    folder = Path(log.removeprefix("embedded:")).parent
    done = subprocess.run([UNSHIP, "-q", "--json", "status"], cwd=folder, capture_output=True, check=False)
    # The job of the night is gone, so nobody obeys what is desired: that is a finding (1), and the counts hold.
    models = json.loads(done.stdout)["models"] if done.returncode in (0, 1) else {}
    return sum(models["churn"]["outcomes"].values()) if "churn" in models else 0


def main() -> int:
    """Run two nights; return 0 if every labelled row was counted exactly once."""
    rng = np.random.default_rng(3)
    with one_monitor("churn") as (log, trust, key):
        for night in range(2):
            version = score(log, trust, key, night)
            label(log, night, rng)
        until, counted = time.monotonic() + DEADLINE_S, 0
        while counted < 2 * ROWS and time.monotonic() < until:
            counted = outcomes(log)
    print(f"Two nights scored {2 * ROWS} rows with {version}, and the monitor counted {counted} labelled answers.")
    return 0 if counted == 2 * ROWS else 1


if __name__ == "__main__":
    sys.exit(main())
