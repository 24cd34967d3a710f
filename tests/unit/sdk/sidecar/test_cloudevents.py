"""CloudEvents over HTTP in the three modes; a foreign SDK writes them, and what is none is answered by a code."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from unship.rejections import RejectCode, Rejection
from unship.sidecar.cloudevents import BATCH, STRUCTURED, data_of

FEEDBACK = {"id": "p-1", "truth": 1}
ATTRIBUTES = {"type": "dev.unship.feedback.v1", "source": "/crm", "id": "e-7", "time": "2026-03-01T00:00:00Z"}
EXPECTED = {"type": "feedback", "id": "p-1", "truth": 1, "ts": "2026-03-01T00:00:00Z"}


class Headers(dict[str, str]):
    """Finds names in any case, as a request's do."""

    def get(self, name: str, default: Any = None) -> Any:
        return next((value for known, value in self.items() if known.lower() == name.lower()), default)


def written(data: dict[str, Any], mode: Any = to_structured_event) -> tuple[dict[str, str], bytes]:
    """What the SDK of CloudEvents sends."""
    time = datetime.fromisoformat(ATTRIBUTES["time"])
    message = mode(CloudEvent(ATTRIBUTES | {"time": time, "datacontenttype": "application/json"}, data))
    return message.headers, message.body


def read(headers: dict[str, str], body: bytes) -> Any:
    found = data_of(Headers(headers), body)
    return json.loads(found) if isinstance(found, bytes) else found


def refused(headers: dict[str, str], body: bytes) -> tuple[int, RejectCode]:
    index, rejection = read(headers, body)
    assert isinstance(rejection, Rejection)
    return index, rejection.code


@pytest.mark.parametrize("mode", [to_binary_event, to_structured_event])
def test_event_that_the_cloudevents_sdk_writes_is_read_in_either_mode(mode: Any) -> None:
    assert read(*written(FEEDBACK, mode)) == EXPECTED


def test_batch_becomes_a_list_in_its_order() -> None:
    events = [json.loads(written(FEEDBACK | {"id": f"p-{n}"})[1]) for n in range(3)]
    found = read({"content-type": f"{BATCH}; charset=utf-8"}, json.dumps(events).encode())
    assert [each["id"] for each in found] == ["p-0", "p-1", "p-2"]
    assert read({"content-type": BATCH}, b"[]") == []


def test_id_and_time_of_the_event_hold_where_the_data_has_none() -> None:
    assert read(*written({"truth": 1, "ts": None})) == EXPECTED | {"id": "e-7"}
    assert read(*written(FEEDBACK | {"ts": 1_772_000_000_000}, to_binary_event))["ts"] == 1_772_000_000_000


def test_data_in_base64_is_read() -> None:
    event = {
        "specversion": "1.0",
        **ATTRIBUTES,
        "data_base64": base64.b64encode(json.dumps(FEEDBACK).encode()).decode(),
    }
    assert read({"Content-Type": STRUCTURED}, json.dumps(event).encode()) == EXPECTED


def test_body_without_cloudevents_is_returned_as_it_came() -> None:
    assert data_of(Headers({"Content-Type": "application/json"}), b" [1, 2") == b" [1, 2"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"specversion": "0.3"}, RejectCode.BAD_EVENT),
        ({"specversion": None}, RejectCode.BAD_EVENT),
        ({"type": "com.example.other"}, RejectCode.UNKNOWN_TYPE),
        ({"type": "dev.unship.operator.v1"}, RejectCode.UNKNOWN_TYPE),
        ({"type": "dev.unship.feedback.v1\n"}, RejectCode.UNKNOWN_TYPE),
        ({"data": "text"}, RejectCode.BAD_EVENT),
        ({"data": None}, RejectCode.BAD_EVENT),
        ({"data_base64": "%%%"}, RejectCode.BAD_EVENT),
        ({"data_base64": "é"}, RejectCode.BAD_EVENT),
    ],
)
def test_event_of_another_kind_or_shape_is_refused_with_its_place(change: dict[str, Any], code: RejectCode) -> None:
    good = {"specversion": "1.0", **ATTRIBUTES, "data": FEEDBACK}
    bad = json.dumps(good | change).encode()
    assert refused({"Content-Type": STRUCTURED}, bad) == (0, code)
    assert refused({"Content-Type": BATCH}, json.dumps([good]).encode()[:-1] + b"," + bad + b"]") == (1, code)


@given(st.binary(max_size=200), st.sampled_from([STRUCTURED, BATCH, "application/json"]), st.text(max_size=30))
def test_any_bytes_are_answered_without_raising(body: bytes, kind: str, text: str) -> None:
    found = data_of(Headers({"Content-Type": kind, "ce-specversion": "1.0", "ce-type": text, "ce-id": text}), body)
    assert isinstance(found, bytes | tuple)


def test_deeply_nested_event_is_refused() -> None:
    assert refused({"Content-Type": STRUCTURED}, b'{"data":' * 5_000)[1] == RejectCode.BAD_EVENT
    assert refused({"Content-Type": BATCH}, b"[" * 50_000)[1] == RejectCode.BAD_JSON
