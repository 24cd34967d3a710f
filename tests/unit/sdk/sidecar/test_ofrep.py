"""A feature flag whose value is a version: by OpenFeature's own client, by plain HTTP, and by an event stream."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from httpx_sse import connect_sse
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

from tests.unit.sdk.sidecar.running import ask, serving
from tests.waiting import HANG_S, until
from unship.shares import chosen, hash_of, unit_hash
from unship.sidecar.http import SidecarServer

FLAGS = "/ofrep/v1/evaluate/flags"
UNITS = [f"customer-{number}" for number in range(30)]


@pytest.fixture
def server(unship_embedded) -> Iterator[SidecarServer]:
    with serving(unship_embedded, flags=True) as running:
        yield running


def context(unit):
    return {"context": {"targetingKey": unit}}


def shared(bench, server, share=0.5, **settings):
    epoch = bench.command("fraud", "v42", shares={"v41": share}, **settings)
    until(lambda: server.sidecar.loaded.share == share, lambda: f"{server.sidecar.health()}")
    return epoch


def test_openfeature_client_gets_the_version_of_its_targeting_key_and_the_labels(server, unship_embedded):
    epoch = shared(unship_embedded, server)
    api.set_provider(OFREPProvider(f"http://127.0.0.1:{server.server_port}"), domain="fraud")
    client = api.get_client("fraud")
    found = {unit: client.get_string_details("fraud", "none", EvaluationContext(unit)) for unit in UNITS}
    assert [details.value for details in found.values()] == [
        chosen(hash_of("fraud", epoch, unit), "v42", {"v41": 0.5}) for unit in UNITS
    ]
    assert {details.reason for details in found.values()} == {"SPLIT"}
    assert {details.value: details.flag_metadata["role"] for details in found.values()} == {
        "v41": "holdback",
        "v42": "live",
    }
    assert all(
        details.flag_metadata["unit_hash"] == unit_hash(hash_of("fraud", epoch, unit))
        for unit, details in found.items()
    )
    unknown = client.get_string_details("other", "none")
    assert (unknown.value, unknown.error_code) == ("none", ErrorCode.FLAG_NOT_FOUND)


def test_flag_without_a_share_is_what_serves_for_everybody(server):
    answers = [ask(server, "POST", f"{FLAGS}/fraud", context(unit))[1] for unit in UNITS[:3]]
    assert {(answer["value"], answer["reason"], answer["metadata"]["role"]) for answer in answers} == {
        ("v42", "STATIC", "live")
    }


def test_flag_without_a_targeting_key_goes_by_the_id_that_the_prediction_is_to_get(server, unship_embedded):
    epoch = shared(unship_embedded, server)
    for _ in range(5):
        code, answer, _ = ask(server, "POST", f"{FLAGS}/fraud", {})
        assert code == 200
        assert answer["value"] == chosen(hash_of("fraud", epoch, answer["metadata"]["id"]), "v42", {"v41": 0.5})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b'{"context": 1}', "PARSE_ERROR"),
        (b'{"context": {"targetingKey": 1}}', "INVALID_CONTEXT"),
        (b'{"context": {"a": ' + b"[" * 20_000, "PARSE_ERROR"),
    ],
)
@pytest.mark.parametrize("path", [FLAGS, f"{FLAGS}/fraud"])
def test_body_that_is_no_context_is_refused_by_a_code_of_the_protocol(server, path, body, code):
    status, answer, _ = ask(server, "POST", path, body)
    assert (status, answer["errorCode"]) == (400, code)


def test_bulk_evaluation_is_unchanged_by_its_etag_until_the_share_or_the_targeting_key_changes(server, unship_embedded):
    code, answer, headers = ask(server, "POST", FLAGS, context("ann"))
    assert (code, [flag["value"] for flag in answer["flags"]]) == (200, ["v42"])
    tag = headers["ETag"]
    assert ask(server, "POST", FLAGS, context("ann"), If_None_Match=f'"other", W/{tag}')[0] == 304
    assert ask(server, "POST", FLAGS, context("bob"), If_None_Match=tag)[0] == 200
    period = shared(unship_embedded, server)
    code, answer, headers = ask(server, "POST", FLAGS, context("ann"), If_None_Match=tag)
    assert (code, headers["ETag"] != tag) == (200, True)
    newer = headers["ETag"]
    shared(unship_embedded, server, 0.1, period_epoch=period)
    assert ask(server, "POST", FLAGS, context("ann"), If_None_Match=newer)[0] == 200


def test_bulk_evaluation_after_an_event_of_another_state_is_answered_in_full(server):
    _, answer, headers = ask(server, "POST", FLAGS, context("ann"))
    known = {"If_None_Match": headers["ETag"]}
    mark = answer["metadata"]["version"]
    assert ask(server, "POST", f"{FLAGS}?flagConfigEtag={mark}", context("ann"), **known)[0] == 304
    assert ask(server, "POST", f"{FLAGS}?flagConfigEtag=older", context("ann"), **known)[0] == 200


def test_event_stream_asks_for_a_new_evaluation_when_share_and_version_change(server, unship_embedded):
    address = f"http://127.0.0.1:{server.server_port}"
    with httpx.Client(base_url=address, timeout=HANG_S) as client:
        (stream,) = client.post(FLAGS, json=context("ann")).json()["eventStreams"]
        assert stream["type"] == "sse"
        with connect_sse(client, "GET", stream["endpoint"]["requestUri"]) as source:
            events = source.iter_sse()
            seen = []
            for change in (
                lambda: unship_embedded.command("fraud", "v42", shares={"v41": 0.5}),
                lambda: unship_embedded.command("fraud", "v41"),
            ):
                change()
                seen.append(next(events))
            data = [json.loads(event.data) for event in seen]
            assert [(event.event, each["type"]) for event, each in zip(seen, data, strict=True)] == [
                ("message", "refetchEvaluation")
            ] * 2
            assert [event.id for event in seen] == [each["etag"] for each in data]
            assert len({event.id for event in seen}) == 2
        until(lambda: server.sidecar.loaded.serving.version == "v41", lambda: f"{server.sidecar.health()}")
        # Whoever comes back with an older event is asked to evaluate at once.
        with connect_sse(client, "GET", "/ofrep/v1/stream", headers={"Last-Event-ID": seen[0].id}) as source:
            assert json.loads(next(source.iter_sse()).data)["type"] == "refetchEvaluation"


def test_sidecar_that_closes_ends_its_event_streams(unship_embedded):
    with serving(unship_embedded, flags=True) as server:
        client = httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", timeout=HANG_S)
        with connect_sse(client, "GET", "/ofrep/v1/stream") as source:
            server.sidecar.close()
            assert list(source.iter_sse()) == []
        client.close()


def test_prediction_that_names_a_unit_is_labelled_by_its_choice_and_the_unit_goes_no_further(server, unship_embedded):
    epoch = shared(unship_embedded, server)
    events = [{"type": "prediction", "id": unit, "output": 1, "unit": unit} for unit in UNITS]
    assert ask(server, "POST", "/v1/events", events)[0] == 202
    seen = unship_embedded.until("predictions", lambda events: len(events) == len(UNITS))
    for unit, event in zip(UNITS, seen, strict=True):
        hashed = hash_of("fraud", epoch, unit)
        version = chosen(hashed, "v42", {"v41": 0.5})
        role = "holdback" if version == "v41" else "live"
        assert (event.version, event.role, event.epoch, event.unit_hash) == (version, role, epoch, unit_hash(hashed))


def test_prediction_that_names_the_version_of_a_share_gets_its_role_and_epoch(server, unship_embedded):
    epoch = shared(unship_embedded, server)
    named = [{"type": "prediction", "id": name, "output": 1, "version": name} for name in ("v41", "v42", "v40")]
    assert ask(server, "POST", "/v1/events", named)[0] == 202
    seen = unship_embedded.until("predictions", lambda events: len(events) == 3)
    assert [(event.role, event.epoch) for event in seen] == [("holdback", epoch), ("live", epoch), ("live", None)]


def test_application_that_confirms_is_told_what_has_a_share_and_confirms_it(unship_embedded):
    with serving(unship_embedded) as server:
        epoch = unship_embedded.command("fraud", "v42", shares={"v41": 0.5})
        until(lambda: server.sidecar.desired().shares == {"v41": "CONFIRMING"}, lambda: f"{server.sidecar.health()}")
        values = {ask(server, "POST", f"{FLAGS}/fraud", context(unit))[1]["value"] for unit in UNITS}
        assert values == {"v42"}
        assert ask(server, "PUT", "/v1/ack", {"version": "v41", "epoch": epoch})[:2] == (200, {"stage": "serving"})
        assert ask(server, "GET", "/v1/desired")[1]["shares"] == {"v41": "ANSWERING"}
        values = {ask(server, "POST", f"{FLAGS}/fraud", context(unit))[1]["value"] for unit in UNITS}
        assert values == {"v41", "v42"}
        assert ask(server, "PUT", "/v1/ack", {"version": "v41", "epoch": epoch, "ok": False})[1] == {"stage": "refused"}
        unship_embedded.until("acks", lambda acks: acks[-1].beside == ())


def test_switch_that_holds_one_version_is_never_made_to_the_version_of_a_share(unship_embedded):
    switched: list[str] = []
    with serving(unship_embedded, switched.append) as server:
        for version in ("v43", "v44", "v45"):
            epoch = unship_embedded.command("fraud", version, shares={"v41": 0.5})
            unship_embedded.until("acks", lambda acks, it=epoch: (acks[-1].epoch, acks[-1].stage) == (it, "serving"))
            assert {ask(server, "POST", f"{FLAGS}/fraud", context(unit))[1]["value"] for unit in UNITS} == {version}
        assert switched == ["v43", "v44", "v45"]
        assert unship_embedded.events("acks")[-1].beside == ()


def test_sidecar_for_flags_follows_a_command_without_a_confirmation(server, unship_embedded):
    unship_embedded.command("fraud", "v43")
    until(lambda: ask(server, "POST", f"{FLAGS}/fraud", {})[1]["value"] == "v43", lambda: f"{server.sidecar.health()}")
    assert ask(server, "PUT", "/v1/ack", {"version": "v43", "epoch": [1, 1, 0]})[0] == 409
