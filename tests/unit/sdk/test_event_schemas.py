"""The published schemas accept what the codec accepts and refuse what it refuses."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from unship.codec import decode_line
from unship.events import EVENT_TYPES
from unship.rejections import Rejection
from unship.schema import event_schemas

PREDICTION: dict[str, Any] = {"type": "prediction", "id": "p-1", "model": "fraud", "version": "v42", "output": 1}
DEPLOYMENT: dict[str, Any] = {"type": "deployment", "model": "fraud", "version": "v42", "status": "live"}
ACK: dict[str, Any] = {
    "type": "ack",
    "model": "m",
    "replica": "r",
    "boot": "b",
    "epoch": [0, 0, 0],
    "stage": "serving",
}

GOOD: list[dict[str, Any]] = [
    PREDICTION,
    PREDICTION | {"score": 0.93, "role": "holdback", "slices": {"country": "DE", "tier": 1}, "ts": 1_760_000_000_000},
    PREDICTION | {"output": None, "latency_ms": 3},
    PREDICTION | {"output": "x" * 1_025},
    PREDICTION | {"output": ["a", "b"], "scores": {"a": 0.5}, "epoch": [0, 1, 2], "at": ["t", 0, 9, 5], "more": None},
    {"type": "feedback", "id": "p-1", "truth": False, "ts": "2025-10-09T08:53:20Z"},
    {"type": "feedback", "id": "p-1", "engagement": 0.5},
    DEPLOYMENT | {"reference": {"zero_one": {"mean": 0.1, "n": 100}}, "card": {"licence": "CC0"}},
    {"type": "operator", "act": "pin", "model": "fraud", "reason": "incident", "by": "ana"},
    ACK | {"stage": "refused", "code": "EXPIRED"},
]
BAD: list[Any] = [
    [],
    {},
    PREDICTION | {"type": "forecast"},
    PREDICTION | {"id": ""},
    PREDICTION | {"id": "x" * 129},
    PREDICTION | {"score": 1.5},
    PREDICTION | {"slices": {"a": [None]}},
    PREDICTION | {"ts": -1},
    PREDICTION | {"epoch": [1, 2]},
    {"type": "feedback", "id": "p-1"},
    {"type": "feedback", "id": "p-1", "truth": None},
    DEPLOYMENT | {"status": "gone"},
    DEPLOYMENT | {"reference": {"zero_one": {"mean": 0.1, "n": 0}}},
    ACK | {"code": "TIRED"},
]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = event_schemas()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("event", GOOD)
def test_good_event_passes_schema_and_codec(validator: jsonschema.Draft202012Validator, event: Any) -> None:
    validator.validate(event)
    assert not isinstance(decode_line(json.dumps(event).encode()), Rejection)


@pytest.mark.parametrize("event", BAD)
def test_bad_event_fails_schema_and_codec(validator: jsonschema.Draft202012Validator, event: Any) -> None:
    assert not validator.is_valid(event)
    assert isinstance(decode_line(json.dumps(event).encode()), Rejection)


def test_every_event_has_its_schema_with_its_tag() -> None:
    schema = event_schemas()
    for tag, event_type in EVENT_TYPES.items():
        definition = schema["$defs"][event_type.__name__]
        assert definition["properties"]["type"] == {"enum": [tag]}
        assert "type" in definition["required"]


def test_schema_is_plain_json_without_ids_and_the_same_twice() -> None:
    text = json.dumps(event_schemas())
    assert text == json.dumps(event_schemas())
    assert '"$id"' not in text


def test_caller_may_change_its_copy_of_the_schema() -> None:
    event_schemas()["$defs"].clear()
    assert "Prediction" in event_schemas()["$defs"]
