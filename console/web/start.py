"""Start the web of a monitor where there is to be one; its libraries are imported only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from console.keyring import Keyring
from console.sentences import clean
from console.settings import Settings
from streams.config.reports import web as resolved
from streams.config.resolved import Web
from unship.signing import Trust

if TYPE_CHECKING:
    from console.web.server import WebThread
    from console.web.sources import Source
    from console.web.vitals import Vitals


def address(configured: Web, listen: str | None, wanted: bool) -> Web:
    """Return where to listen: where the command line names, else the configuration; nowhere if that is not wanted.

    Raises:
        ConfigurationError: The address is none, or needs a token.
    """
    if not wanted:
        return Web()
    return configured if listen is None else resolved(listen, configured.token_file, "--web")


def serve(
    where: Web, settings: Settings, keys: Keyring, make: Callable[[], Source], *, alone: bool = False
) -> WebThread | None:
    """Start to serve; return the thread that does it, None if it is to be served nowhere.

    `alone` is true where no other process decides on the log.

    Raises:
        ConfigurationError: It cannot listen there.
    """
    if where.host is None:
        return None
    from console.web.server import WebThread

    def trust() -> Trust | None:
        signer = keys.signer
        return None if signer is None else signer.trust

    folder = settings.config.parent if settings.config is not None else Path()
    served = WebThread(where, folder, make, trust, lambda text: settings.report(f"run: {clean(text)}"), alone=alone)
    settings.report(f"run: metrics and status at {served.url}")
    return served


@contextmanager
def serving(where: Web, settings: Settings, keys: Keyring, log: Path) -> Iterator[Vitals | None]:
    """Serve what an embedded log in a folder shows, while the block runs; give what takes the monitor's vitals."""

    def source() -> Source:
        from console.web.sources import EmbeddedSource

        return EmbeddedSource(log)

    served = serve(where, settings, keys, source, alone=True)
    try:
        yield None if served is None else served.vitals
    finally:
        if served is not None:
            served.close()
