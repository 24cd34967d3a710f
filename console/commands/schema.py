"""Run `unship schema`: print the contract as JSON Schema, generated from the types that decode it."""

from __future__ import annotations

from typing import Any

import msgspec

from actions.journal import Decision
from streams.config.sections import ConfigFile
from unship.schema import DIALECT, event_schemas


def schema_text(what: str) -> str:
    """Return the schema of `events`, `config` or `decision` as indented JSON."""
    schemas = {"events": event_schemas, "config": config_schema, "decision": decision_schema}
    return msgspec.json.format(msgspec.json.encode(schemas[what]()), indent=2).decode()


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of `unship.yaml`."""
    return {"$schema": DIALECT, "title": "unship.yaml", **msgspec.json.schema(ConfigFile)}


def decision_schema() -> dict[str, Any]:
    """Return the JSON Schema of a decision: a line of `decisions`."""
    return {"$schema": DIALECT, "title": "unship decision", **msgspec.json.schema(Decision)}
