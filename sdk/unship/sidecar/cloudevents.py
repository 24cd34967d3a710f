"""Read CloudEvents from HTTP: one in headers and body (binary), one as JSON (structured), or a JSON array (batch).

The event's data is ours; `type` is its kind (`dev.unship.prediction.v1`), `time` and `id` are taken where the data has
no time or id of its own. Other attributes, such as `source` and all extensions, are ignored.

References: CloudEvents 1.0.2, https://github.com/cloudevents/spec (HTTP protocol binding, JSON event format).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec
from msgspec import Raw

from unship.rejections import RejectCode, Rejection

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_TYPE: Final = re.compile(r"dev\.unship\.(prediction|feedback)\.v1")
_EXPECTED: Final = "Expected dev.unship.prediction.v1 or dev.unship.feedback.v1"


def media_type(content_type: str) -> str:
    """Return a content type without its parameters.

    Example:
        >>> media_type("application/CloudEvents+json; charset=utf-8")
        'application/cloudevents+json'
    """
    return content_type.partition(";")[0].strip().lower()


class Headers(Protocol):
    """Finds the headers of a request by their names, in any case."""

    def get(self, name: str) -> str | None:
        """Return the value of one, None if there is none."""


def data_of(headers: Headers, body: bytes) -> bytes | tuple[int, Rejection]:
    """Return the body as events of ours; one that holds no CloudEvents is returned as it came.

    Args:
        headers: Those of the request.
        body: Of a size that was checked.

    Returns:
        JSON of one event or an array, or the place of the first event that is none, and why.

    Example:
        >>> data_of({"Content-Type": STRUCTURED}, b'{"specversion": "1.0", "type": "dev.unship.feedback.v1",'
        ...     b'"id": "p-1", "source": "crm", "data": {"truth": 1}}')
        b'{"truth":1,"type":"feedback","id":"p-1"}'
    """
    kind = media_type(headers.get("Content-Type") or "")
    if kind == BATCH:
        return _batch(body)
    version = headers.get("ce-specversion")
    if kind == STRUCTURED:
        made = _made(body)
    elif version is not None:
        made = _event(_attributes(headers, version), body)
    else:
        return body
    return (0, made) if isinstance(made, Rejection) else made


def _attributes(headers: Headers, version: str) -> dict[str, str]:
    attributes = {"specversion": version}
    for name in ("type", "id", "time"):
        text = headers.get(f"ce-{name}")
        if text is not None:
            attributes[name] = unquote(text)
    return attributes


def _batch(body: bytes) -> bytes | tuple[int, Rejection]:
    try:
        each = msgspec.json.decode(body, type=list[Raw])
    except (ValueError, RecursionError):
        return 0, Rejection(RejectCode.BAD_JSON, "not one JSON array of CloudEvents")
    made = []
    for index, raw in enumerate(each):
        event = _made(bytes(raw))
        if isinstance(event, Rejection):
            return index, event
        made.append(event)
    return b"[" + b",".join(made) + b"]"


def _made(raw: bytes) -> bytes | Rejection:
    """Return our event of one structured CloudEvent."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Raw])
        attributes: dict[str, str] = {
            name: msgspec.json.decode(fields[name], type=str)
            for name in ("specversion", "type", "id", "time", "data_base64")
            if name in fields
        }
    except (ValueError, RecursionError):
        return Rejection(RejectCode.BAD_EVENT, "Expected a CloudEvent: an object whose attributes are text")
    data = bytes(fields["data"]) if "data" in fields else b""
    if "data_base64" in attributes:
        try:
            data = base64.b64decode(attributes["data_base64"], validate=True)
        except (binascii.Error, ValueError):
            return Rejection(RejectCode.BAD_EVENT, "Expected Base64 - at `$.data_base64`")
    return _event(attributes, data)


def _event(attributes: Mapping[str, str], data: bytes) -> bytes | Rejection:
    version = attributes.get("specversion")
    if version != "1.0":
        return Rejection(RejectCode.BAD_EVENT, "Expected `1.0` - at `$.specversion`")
    kind = _TYPE.fullmatch(attributes.get("type", ""))
    if kind is None:
        return Rejection(RejectCode.UNKNOWN_TYPE, f"{_EXPECTED} - at `$.type`")
    try:
        fields = msgspec.json.decode(data, type=dict[str, Raw])
    except (ValueError, RecursionError):
        return Rejection(RejectCode.BAD_EVENT, "Expected an object - at `$.data`")
    # Both would state the kind of the event: the one that other programs route by holds.
    fields["type"] = _text(kind[1])
    for name, attribute in (("id", "id"), ("ts", "time")):
        if attribute in attributes and _absent(fields.get(name)):
            fields[name] = _text(attributes[attribute])
    return msgspec.json.encode(fields)


def _absent(value: Raw | None) -> bool:
    return value is None or bytes(value) == b"null"


def _text(value: str) -> Raw:
    return Raw(msgspec.json.encode(value))
