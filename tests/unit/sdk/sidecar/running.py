"""A sidecar that runs, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.waiting import HANG_S
from unship import Fleet
from unship.sidecar.http import SidecarServer
from unship.sidecar.sidecar import Sidecar


@contextmanager
def serving(bench: Any, switch: Any = None, **settings: Any) -> Iterator[SidecarServer]:
    """Run a sidecar of the replica r-1, which serves v42 of fraud."""
    sidecar = Sidecar(
        lambda load: Fleet("fraud", "v42", on_version=load, log=bench.log, trust=bench.trust, replica="r-1"),
        bench.log,
        switch,
        **settings,
    )
    server = SidecarServer(("127.0.0.1", 0), sidecar)
    sidecar.start()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        sidecar.close()
        server.server_close()


def ask(server, method, path, content=None, **headers):
    """Send one request; return the code, the decoded body and the headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=HANG_S)
    body = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data) if data else None, answer.headers
