"""Run `unship schema`: print the contract as JSON Schema, generated from the types that decode it."""

from __future__ import annotations

from typing import Any

import msgspec

from streams.config.sections import ConfigFile
from unship.schema import event_schemas


def schema_text(what: str) -> str:
    """Return the schema of `events` or `config` as indented JSON."""
    schema: Any = event_schemas() if what == "events" else config_schema()
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of `unship.yaml`."""
    schema = msgspec.json.schema(ConfigFile)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "unship.yaml", **schema}
