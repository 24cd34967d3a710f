"""Answer OpenFeature's remote evaluation protocol (OFREP): the version of a model is the value of a feature flag.

The flag is named as the model, its value is the version that answers the targeting key, and its metadata is what the
prediction is to be labelled with. The event stream reports that an evaluation may have changed, and nothing else: a
provider then asks again.

References: OFREP 0.3, https://github.com/open-feature/protocol (`service/openapi.yaml`, `service/event-streams.yaml`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from unship.replica.choice import Choice, Loaded

EVALUATE: Final = "/ofrep/v1/evaluate/flags"
STREAM: Final = "/ofrep/v1/stream"

CONTEXT_BYTES_MAX: Final = 65_536
"""Largest body of a request: a context is some attributes of a user, of which only the targeting key is read."""

INACTIVITY_S: Final = 120
"""After how long without use a provider should close its stream."""

ALIVE: Final = b":\n"
"""A comment, without the empty line that would end an event: some clients take that for an event without data."""

ALIVE_S: Final = 15.0
"""How often a stream without news gets a comment, so that a client that is gone frees its place."""


class _Request(Struct):
    context: dict[str, Raw] = {}


class Answer(Struct, frozen=True):
    """Hold an answer over HTTP; without content it has no body."""

    code: int
    content: dict[str, Any] | None
    mark: str | None = None


class BadContext(Exception):
    """Report a context that cannot be read, by a code of the protocol."""

    def __init__(self, code: str, detail: str) -> None:
        """Keep code and detail, nothing of which comes from the client."""
        super().__init__(detail)
        self.code = code


def unit_of(body: bytes) -> str | None:
    """Return the targeting key of a request's body, None if it has none.

    Raises:
        BadContext: The body is no request.

    Example:
        >>> unit_of(b'{"context": {"targetingKey": "ann", "plan": "free"}}')
        'ann'
    """
    try:
        context = msgspec.json.decode(body or b"{}", type=_Request).context
    except (ValueError, RecursionError, OverflowError):
        raise BadContext("PARSE_ERROR", 'expected {"context": {"targetingKey": TEXT}}') from None
    try:
        return msgspec.json.decode(context["targetingKey"], type=str) if "targetingKey" in context else None
    except ValueError:
        raise BadContext("INVALID_CONTEXT", "targetingKey: expected text") from None


def mark_of(loaded: Loaded) -> str:
    """Return a short text that changes with everything that the flag's value depends on but the targeting key."""
    serving, holdback = loaded.serving, loaded.holdback
    parts = (serving.version, serving.epoch, serving.artifact, holdback, loaded.share, loaded.period_epoch)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def evaluated(choice: Choice, model: str, *, shared: bool) -> dict[str, Any]:
    """Return the flag's value with what a prediction is to be labelled with.

    Args:
        choice: What was chosen for the targeting key.
        model: The flag's key.
        shared: Whether another version answers other targeting keys.
    """
    known = {
        "role": choice.role,
        "epoch": None if choice.epoch is None else ".".join(map(str, choice.epoch)),
        "artifact": choice.artifact,
        "unit_hash": choice.unit_hash,
        "id": choice.id,
    }
    return {
        "key": model,
        "value": choice.version,
        "variant": choice.version,
        "reason": "SPLIT" if shared else "STATIC",
        "metadata": {name: value for name, value in known.items() if value is not None},
    }


def flag(key: str, body: bytes, model: str, loaded: Loaded, choose: Callable[[str | None], Choice]) -> Answer:
    """Answer an evaluation of one flag."""
    if key != model:
        return Answer(404, _error("FLAG_NOT_FOUND", "the one flag here is named as the model", model))
    try:
        unit = unit_of(body)
    except BadContext as bad:
        return Answer(400, _error(bad.code, str(bad), model))
    return Answer(200, evaluated(choose(unit), model, shared=loaded.holdback is not None))


def flags(
    body: bytes, model: str, loaded: Loaded, choose: Callable[[str | None], Choice], known: str, trigger: str | None
) -> Answer:
    """Answer an evaluation of all flags.

    Args:
        body: The request's body.
        model: The one flag's key.
        loaded: What the flag's value depends on.
        choose: Chooses the version for a targeting key.
        known: The header `If-None-Match`.
        trigger: The mark in the event that led to the request, if one did: another one than that of now has been
            superseded, and what the client knows is not trusted to be newer.
    """
    try:
        unit = unit_of(body)
    except BadContext as bad:
        return Answer(400, _error(bad.code, str(bad)))
    mark = mark_of(loaded)
    tag = f"{mark}-{hashlib.sha256((unit or '').encode()).hexdigest()[:16]}"
    asked = {each.strip().removeprefix("W/").strip('"') for each in known.split(",")}
    if tag in asked and trigger in (None, mark):
        return Answer(304, None, tag)
    found = evaluated(choose(unit), model, shared=loaded.holdback is not None)
    stream = {"type": "sse", "endpoint": {"requestUri": STREAM}, "inactivityDelaySec": INACTIVITY_S}
    return Answer(200, {"flags": [found], "eventStreams": [stream], "metadata": {"version": mark}}, tag)


def refetch(mark: str) -> bytes:
    """Return the event that asks a provider to evaluate again."""
    data = msgspec.json.encode({"type": "refetchEvaluation", "etag": mark})
    return b"id: %b\nevent: message\nretry: 1000\ndata: %b\n\n" % (mark.encode(), data)


def _error(code: str, detail: str, key: str | None = None) -> dict[str, Any]:
    about = {} if key is None else {"key": key}
    return {**about, "errorCode": code, "errorDetails": detail}
