"""Serve in a plain loop: one process answers, its version decays silently, and it is taken back on its own.

Run it with the project's Python: `.venv/bin/python examples/plain_loop.py`. It starts a monitor of its own on a log in
a temporary folder, and ends within seconds.
"""

import sys
import time

import numpy as np
from one_monitor import one_monitor

from unship import Feedback, Fleet
from unship.replica.fence import Serving

DEADLINE_S = 18.0


def main() -> int:
    """Answer until the monitor takes the decayed version back; return 0 if it did in time."""
    rng = np.random.default_rng(5)
    models = {"v41": "the model before", "v42": "the new model"}
    loaded: list[str] = []

    def load(version: str) -> None:
        loaded.append(models[version])

    with (
        one_monitor("fraud") as (log, trust, key),
        Fleet("fraud", "v42", on_version=load, log=log, trust=trust, replica="example-0") as fleet,
        Feedback(log, source="chargebacks") as labels,
    ):
        # A monitor that may act follows only deployments that are signed.
        fleet.deployed("live", version="v41", key=key)
        fleet.deployed("live", version="v42", previous="v41", key=key)
        fleet.deployed("holdback", version="v41", key=key)
        fleet.flush()
        until, answered = time.monotonic() + DEADLINE_S, 0
        while not loaded and time.monotonic() < until:
            for _ in range(40):
                # Three requests in ten are answered by the version before, so that there is something to compare.
                holdback = rng.random() < 0.3
                now = Serving("v41") if holdback else fleet.current
                decayed = answered > 2_000 and now.version == "v42"
                answer = fleet.predicted(1, role="holdback" if holdback else "live", as_=now)
                labels.truth(answer, 0 if rng.random() < (0.6 if decayed else 0.05) else 1)
                answered += 1
            fleet.flush()
            labels.flush()
        fleet.wait_for("v41", timeout_s=2.0)
        serving = fleet.current.version
    if serving != "v41":
        print(f"After {answered} answers {serving} still serves.")
        return 1
    print(f"v42 began to decay after 2000 answers, and after {answered} the monitor had v41 serving again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
