"""Publish the contract of the events as JSON Schema, made from the same types that the codec checks with."""

from __future__ import annotations

from typing import Any

import msgspec

from unship.events import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_schemas() -> dict[str, Any]:
    """Return one JSON Schema document for every event: any event validates against it, each is in `$defs`.

    The `type` tag is required here, as in a recording's lines; the value of a record on its own topic may leave it
    out. The codec is stricter where JSON Schema cannot be: an integer written as 1.0, RFC 3339 text out of range.

    Example:
        >>> sorted(event_schemas()["$defs"])
        ['Ack', 'Deployment', 'Feedback', 'OperatorAct', 'Prediction', 'Reference']
    """
    (union,), definitions = msgspec.json.schema_components([Event], ref_template="#/$defs/{name}")
    # A type cannot express "one of two fields", the codec and this line do.
    definitions["Feedback"]["anyOf"] = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in ("truth", "engagement")
    ]
    return {"$schema": DIALECT, "title": "unship events", **union, "$defs": definitions}
