"""Serve over HTTP with FastAPI: the service starts and stops its fleet, and a version that decays is taken back.

What a service needs is in `application`; the rest plays its callers. Run it with the project's Python:
`.venv/bin/python examples/fastapi_app.py`. It starts a monitor of its own on a log in a temporary folder, serves on a
free port of 127.0.0.1, and ends within seconds.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from one_monitor import one_monitor
from pydantic import BaseModel

from unship import Feedback, Fleet
from unship.replica.fence import Serving

DEADLINE_S = 18.0
PACE_S = 0.02


class Payment(BaseModel):
    """What is asked about: is this payment fraud?"""

    amount: float
    risk: float


class Answer(BaseModel):
    """Carry a version's answer about a payment; its truth is reported under the id."""

    id: str
    fraud: bool
    version: str


class Truth(BaseModel):
    """What became known later about an answer."""

    id: str
    fraud: bool


Model = Callable[[Payment], bool]
MODELS: dict[str, Model] = {"v41": lambda payment: payment.risk > 0.5, "v42": lambda payment: payment.amount > 500}


def application(log: str, trust: str, key: str, labels: Feedback) -> FastAPI:
    """Return a service that answers with v42, and obeys what the monitor wants it to serve instead."""
    # A real service would load v41 when it is needed; here it answers some requests from the start.
    loaded = {"v41": MODELS["v41"], "v42": MODELS["v42"]}

    def load(version: str) -> None:
        loaded[version] = MODELS[version]

    fleet = Fleet("fraud", "v42", on_version=load, log=log, trust=trust, replica="web-0")
    app = FastAPI(lifespan=fleet.lifespan)
    chance = np.random.default_rng(5)

    @app.post("/predict")
    async def predict(payments: list[Payment]) -> list[Answer]:
        # Read once: a switch in the middle of a request must not mix two versions.
        now = fleet.current
        answers = []
        for payment in payments:
            # Three in ten are answered by the version before, so that there is something to compare.
            beside = now.version == "v42" and chance.random() < 0.3
            by = Serving("v41") if beside else now
            fraud = loaded[by.version](payment)
            # It never waits, so an asynchronous function may call it.
            answer_id = fleet.predicted(fraud, role="holdback" if beside else "live", as_=by)
            answers.append(Answer(id=answer_id, fraud=fraud, version=by.version))
        return answers

    @app.post("/feedback", status_code=202)
    def feedback(truths: list[Truth]) -> None:
        # A plain function, which FastAPI runs on a thread: where many labels come at once, it waits for room.
        for truth in truths:
            labels.truth(truth.id, truth.fraud)

    @app.post("/deployed/{version}", status_code=202)
    async def deployed(version: str, status: str) -> None:
        # In production the release pipeline announces versions, and the service has no key.
        fleet.deployed("live" if status == "live" else "holdback", version=version, key=key)

    return app


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve on a free port for as long as the block runs, and yield the address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def main() -> int:
    """Call the service until it answers with the version before; return 0 if it did in time."""
    rng = np.random.default_rng(5)
    with (
        one_monitor("fraud") as (log, trust, key),
        Feedback(log, source="chargebacks") as labels,
        served(application(log, trust, key, labels)) as address,
        httpx.Client(base_url=address) as client,
    ):
        for version, status in (("v41", "live"), ("v42", "live"), ("v41", "holdback")):
            client.post(f"/deployed/{version}?status={status}").raise_for_status()
        until, answered, versions = time.monotonic() + DEADLINE_S, 0, {"v42"}
        while "v42" in versions and time.monotonic() < until:
            risks = rng.random(40)
            # After 2000 answers the amounts come in cents. Nothing fails, and v42 takes most payments for fraud.
            unit = 100_000 if answered >= 2_000 else 1_000
            payments = [{"amount": unit * risk, "risk": risk} for risk in risks]
            answers = client.post("/predict", json=payments).raise_for_status().json()
            # One truth in twenty contradicts the risk.
            truths = [(risk > 0.5) != (rng.random() < 0.05) for risk in risks]
            known = [{"id": it["id"], "fraud": bool(truth)} for it, truth in zip(answers, truths, strict=True)]
            client.post("/feedback", json=known).raise_for_status()
            versions = {answer["version"] for answer in answers}
            answered += len(answers)
            time.sleep(PACE_S)
    if "v42" in versions:
        print(f"After {answered} answers v42 still serves.")
        return 1
    print(f"v42 began to decay after 2000 answers, and after {answered} the service had v41 answering again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
