"""What was rolled back is deployed again, under its name or another one, with or without its digest."""

from __future__ import annotations

import pytest

from actions.journal import Decision
from console.sentences import sentence
from streams.config.parse import parse
from tests.pipelines import Run
from unship.codec import encode_line
from unship.events import Deployment, Event, OperatorAct, Prediction

START = 1_772_409_600_000
BAD = f"sha256:{'a' * 64}"


def course(version: str, artifact: str | None) -> tuple[str | None, list[Decision]]:
    """Roll v2 back, deploy a version, and return what is desired then, with the decisions that follow the rollback."""
    again = Deployment(model="m", version=version, status="live", artifact=artifact, ts=START + 40_000)
    events: list[Event] = [
        Deployment(model="m", version="v1", status="live", ts=START),
        Deployment(model="m", version="v2", status="live", artifact=BAD, ts=START + 10_000),
        Prediction(id="p", model="m", version="v2", output=1, ts=START + 20_000),
        OperatorAct(act="rollback", model="m", to="v1", reason="bad", by="ann", ts=START + 30_000),
        again,
    ]
    made = Run(parse("models: {m: {policy: {mode: act}}}"))
    made.take(map(encode_line, events))
    made.rest()
    return made.fold.models["m"].state.desired.serve, made.decisions[1:]


@pytest.mark.parametrize(("version", "artifact"), [("v2", BAD), ("v2", None), ("retag", BAD), ("retag", None)])
def test_same_bytes_are_barred_under_any_name_and_with_no_digest(version: str, artifact: str | None) -> None:
    serve, (page,) = course(version, artifact)
    assert (serve, page.reason, page.action) == ("v1", "QUARANTINED", "page")


@pytest.mark.parametrize("artifact", [BAD.upper(), BAD.replace("a", "A"), f" {BAD}", f"{BAD}\n", BAD.replace(":", "=")])
def test_same_digest_in_other_letters_is_no_deployment(artifact: str) -> None:
    assert course("retag", artifact) == ("v1", [])


def test_other_bytes_serve() -> None:
    assert course("v3", f"sha256:{'b' * 64}")[0] == "v3"


def test_page_on_a_missing_digest_names_the_fix() -> None:
    _, (page,) = course("retag", None)
    assert sentence(page) == (
        "A person is needed for m retag, which is not served: retag has no digest, and v2 is in quarantine with one, "
        "so the two may be the same bytes: deploy retag with its digest (artifact: sha256:...), or release v2."
    )
