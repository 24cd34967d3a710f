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
    """Return a service that starts with v41, and obeys what the monitor wants it to serve, to all or to a share."""
    loaded = {"v41": MODELS["v41"]}

    def load(version: str) -> None:
        # What served until now stays loaded: it may have to answer a share of the requests, or all of them again.
        loaded[version] = MODELS[version]

    fleet = Fleet("fraud", "v41", on_version=load, log=log, trust=trust, replica="web-0")
    app = FastAPI(lifespan=fleet.lifespan)

    @app.post("/predict")
    async def predict(payments: list[Payment]) -> list[Answer]:
        answers = []
        for payment in payments:
            # Asked once for each answer, which is then labelled with the version that gave it. Where a customer should
            # always get the same version, it is the unit: `fleet.choose(customer)`.
            by = fleet.choose()
            fraud = loaded[by.version](payment)
            # It never waits, so an asynchronous function may call it.
            answer_id = fleet.predicted(fraud, as_=by)
            answers.append(Answer(id=answer_id, fraud=fraud, version=by.version))
        return answers

    @app.post("/feedback", status_code=202)
    def feedback(truths: list[Truth]) -> None:
        # A plain function, which FastAPI runs on a thread: where many labels come at once, it waits for room.
        for truth in truths:
            labels.truth(truth.id, truth.fraud)

    @app.post("/deployed/{version}", status_code=202)
    async def deployed(version: str) -> None:
        # In production the release pipeline announces versions, and the service has no key.
        fleet.deployed(version=version, key=key)

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
        one_monitor("fraud", holdback="30%") as (log, trust, key),
        Feedback(log, source="chargebacks") as labels,
        served(application(log, trust, key, labels)) as address,
        httpx.Client(base_url=address) as client,
    ):
        client.post("/deployed/v41").raise_for_status()
        until, answered, by_v42, released, versions = time.monotonic() + DEADLINE_S, 0, 0, False, {"v41"}
        while not (by_v42 > 1_500 and "v42" not in versions) and time.monotonic() < until:
            if answered >= 2_000 and not released:
                # The monitor found v41 healthy, so v41 keeps three requests in ten for a comparison.
                client.post("/deployed/v42").raise_for_status()
                released = True
            risks = rng.random(40)
            # After 1500 answers of v42 the amounts come in cents. Nothing fails, and it takes most payments for fraud.
            unit = 100_000 if by_v42 >= 1_500 else 1_000
            payments = [{"amount": unit * risk, "risk": risk} for risk in risks]
            answers = client.post("/predict", json=payments).raise_for_status().json()
            # One truth in twenty contradicts the risk.
            truths = [(risk > 0.5) != (rng.random() < 0.05) for risk in risks]
            known = [{"id": it["id"], "fraud": bool(truth)} for it, truth in zip(answers, truths, strict=True)]
            client.post("/feedback", json=known).raise_for_status()
            versions = {answer["version"] for answer in answers}
            answered += len(answers)
            by_v42 += sum(answer["version"] == "v42" for answer in answers)
            time.sleep(PACE_S)
    if by_v42 <= 1_500 or "v42" in versions:
        print(
            f"After {answered} answers, {by_v42} of them by v42, the last ones are by {' and '.join(sorted(versions))}."
        )
        return 1
    print(f"v42 began to decay after 1500 answers of its own, and after {by_v42} the service had v41 answering again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
