"""Send JSON over HTTP, for sinks: one connection pool, a deadline for each request, no redirects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actions.adapters.sink import Problem

if TYPE_CHECKING:
    import aiohttp

TRY_AGAIN = (408, 425, 429)
"""Answers of the 400s that another try may change."""


def shown(url: str) -> str:
    """Return a URL without what may be secret in it: name and password, path, query.

    >>> shown("https://user:word@hooks.example.com:8443/T000/B000?token=1")
    'https://hooks.example.com:8443'
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


class HttpClient:
    """Post to one URL; to be used in one event loop."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Problem | None:
        """Post a body of JSON; return why it was not accepted. Another address in the answer is not followed."""
        import aiohttp

        if self._session is None:
            limit = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(timeout=limit, headers={"User-Agent": "unship"})
        try:
            async with self._session.post(
                self._url,
                data=body,
                headers={"Content-Type": "application/json", **headers},
                allow_redirects=False,
            ) as answer:
                status = answer.status
        except TimeoutError:
            return Problem(f"gave no answer within {self._timeout_s:g} s")
        except (aiohttp.InvalidURL, ValueError):
            return Problem("its URL cannot be used", refused=True)
        except aiohttp.ClientConnectorError as error:
            # The error of the system has the address in its text, which may be that of a proxy.
            number = error.os_error.errno
            return Problem(f"cannot be reached: {os.strerror(number) if number else type(error.os_error).__name__}")
        except (aiohttp.ClientError, OSError) as error:
            return Problem(f"cannot be reached: {type(error).__name__}")
        if 200 <= status < 300:
            return None
        return Problem(f"answered {status}", refused=300 <= status < 500 and status not in TRY_AGAIN)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
