"""Post alerts to a URL, signed as Standard Webhooks describe, so that a receiver can check who sent them and when.

The signature is HMAC-SHA256 of `ID.TIME.BODY` under a shared secret, in the header `webhook-signature`; the id in
`webhook-id` is the same in each try of one change of an incident, so that a receiver drops repeats by it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from actions.adapters.http_client import HttpClient, shown
from actions.adapters.sink import Problem
from actions.incidents import Alert, alert_bytes

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret in base64 begins with


class WebhookSink:
    """Post each alert as one JSON object."""

    repeat_ms: int | None = None

    def __init__(self, url: str, secret: str | None = None, timeout_s: float = 30.0) -> None:
        """Prepare to post to a URL; without a secret nothing is signed."""
        self.name = f"webhook {shown(url)}"
        self._client = HttpClient(url, timeout_s)
        self._key = None if secret is None else key_of(secret)

    async def send(self, alert: Alert, now_ms: int) -> Problem | None:
        """Post an alert."""
        body = alert_bytes(alert)
        return await self._client.post(body, signed_headers(self._key, message_id(alert), now_ms // 1_000, body))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def message_id(alert: Alert) -> str:
    """Return what identifies a change of an incident, in each try of sending it."""
    return f"{alert.incident}.{alert.ts}"


def key_of(secret: str) -> bytes:
    """Return the key that a secret is: base64 after `whsec_`, else its text.

    Raises:
        ValueError: What follows `whsec_` is no base64.

    >>> key_of("whsec_c2VjcmV0"), key_of("plain")
    (b'secret', b'plain')
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"what follows {SECRET_PREFIX} is no base64") from error


def signed_headers(key: bytes | None, name: str, ts_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message: its id, its time in seconds, and with a key its signature."""
    headers = {"webhook-id": name, "webhook-timestamp": str(ts_s)}
    if key is not None:
        digest = hmac.new(key, f"{name}.{ts_s}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
