"""Serve as a small fleet does: two versions answer, one of them decays after a while, and truths come later.

docker-compose.yml starts it together with the monitor, so that there is something to see; it knows the log from the
environment's UNSHIP_LOG and ends by a signal. `--answers N` ends it after so many answers.
"""

import argparse
import os
import random
import signal
import threading
import time
from pathlib import Path

from unship import Feedback, Fleet
from unship.replica.fence import Serving

MODEL, NEW, OLD = "fraud", "v42", "v41"
DECAYS_AFTER = 20_000
ERROR_RATE, DECAYED_RATE = 0.05, 0.15
HOLDBACK_SHARE = 0.3
BATCH, BATCHES_PER_S = 20, 10
#: The file of trusted keys, if there is one: without it nothing is obeyed.
TRUST = os.environ.get("UNSHIP_TRUST")
#: The deployer's key, if there is one: a monitor that may act follows only deployments that are signed.
KEY = os.environ.get("UNSHIP_DEPLOYER_KEY")
HEARTBEAT = Path("alive")
"""Touched with each batch; the container is healthy while this file is young."""


def main() -> None:
    """Answer until a signal stops it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int)
    limit = parser.parse_args().answers
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # Nothing is decided here: the same run every time.
    chance = random.Random(5)
    with (
        Fleet(MODEL, NEW, on_version=print, trust=TRUST, replica="fleet-0") as fleet,
        Feedback(source="demo") as labels,
    ):
        fleet.deployed("live", version=OLD, key=KEY)
        fleet.deployed("live", version=NEW, previous=OLD, key=KEY)
        fleet.deployed("holdback", version=OLD, key=KEY)
        answered = 0
        while not stop.is_set() and (limit is None or answered < limit):
            began = time.monotonic()
            for _ in range(BATCH):
                holdback = chance.random() < HOLDBACK_SHARE
                now = Serving(OLD) if holdback else fleet.current
                wrong = DECAYED_RATE if now.version == NEW and answered > DECAYS_AFTER else ERROR_RATE
                answer = fleet.predicted(1, role="holdback" if holdback else "live", as_=now)
                labels.truth(answer, 0 if chance.random() < wrong else 1)
                answered += 1
            HEARTBEAT.touch()
            stop.wait(max(0.0, 1 / BATCHES_PER_S - (time.monotonic() - began)))
    print(f"{answered} answers: {fleet.stats}", flush=True)


if __name__ == "__main__":
    main()
