"""Resolve where a monitor reports to: the sinks of its alerts, and the address of its web."""

from __future__ import annotations

import base64
import re

from streams.config.resolved import AlertSink, Web
from streams.config.sections import AlertSection
from streams.config.units import duration_ms
from unship.errors import ConfigurationError

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret in base64 begins with
LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORT_MAX = 65_535
_HTTP = re.compile(r"https?://(?:[^/@\s]*@)?(?:\[[0-9a-fA-F:.]+\]|[^/:@\s\[\]?#]+)(?::(\d{1,5}))?(?:[/?#]\S*)?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def alert_sink(section: AlertSection, path: str) -> AlertSink:
    """Return the sink that an entry of `alerts` names.

    Raises:
        ConfigurationError: It names none or several, or a key that another kind has.
    """
    timeout = duration_ms(section.timeout, f"{path}.timeout")
    if not 1_000 <= timeout <= 600_000:
        raise ConfigurationError(f"{path}.timeout: {section.timeout} is outside 1s .. 10m")
    urls = {"webhook": section.webhook, "alertmanager": section.alertmanager, "apprise": section.apprise}
    given = [name for name, url in urls.items() if url is not None]
    if len(given) + (section.command is not None) != 1:
        raise ConfigurationError(
            f"{path}: expected one of command, webhook, alertmanager and apprise, such as command: ['./page.sh'], "
            f"was {' and '.join([*(['command'] if section.command is not None else []), *given]) or 'none'}"
        )
    if section.secret is not None and section.webhook is None:
        raise ConfigurationError(f"{path}.secret: only a webhook is signed; leave it out")
    if section.environment and section.command is None:
        raise ConfigurationError(f"{path}.environment: only a command has one; leave it out")
    if section.command is not None:
        if not section.command or not section.command[0]:
            raise ConfigurationError(f"{path}.command: expected a command such as ['./page.sh'], was {section.command}")
        return AlertSink("command", section.command, timeout, section.environment)
    if section.webhook is not None:
        _check_secret(section.secret, f"{path}.secret")
        return AlertSink("webhook", [_http(section.webhook, f"{path}.webhook")], timeout, secret=section.secret)
    if section.alertmanager is not None:
        return AlertSink("alertmanager", [_http(section.alertmanager, f"{path}.alertmanager")], timeout)
    url = section.apprise or ""
    if not _URL.match(url):
        raise ConfigurationError(f"{path}.apprise: expected a URL of Apprise such as mailto://user:password@host")
    return AlertSink("apprise", [url], timeout)


def _http(url: str, path: str) -> str:
    found = _HTTP.fullmatch(url)
    if found is None or not 0 < int(found[1] or 80) <= PORT_MAX:
        # Without the value, which may hold a secret.
        raise ConfigurationError(f"{path}: expected http://HOST... or https://HOST...")
    return url


def _check_secret(secret: str | None, path: str) -> None:
    if secret is not None and len(secret) < 16:
        raise ConfigurationError(
            f"{path}: expected at least 16 characters, was {len(secret)}; make one with: openssl rand -base64 32, "
            'and name its environment variable: secret: "${NAME}"'
        )
    if secret is not None and secret.startswith(SECRET_PREFIX):
        try:
            base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except ValueError:
            raise ConfigurationError(f"{path}: what follows {SECRET_PREFIX} is no base64") from None


def web(listen: str | None, token_file: str | None, path: str) -> Web:
    """Return where the web listens, as HOST:PORT has it.

    Raises:
        ConfigurationError: It is no address, or one that other machines reach although there is no token.

    Example:
        >>> web("127.0.0.1:8080", None, "web.listen")
        Web(host='127.0.0.1', port=8080, token_file=None)
    """
    if listen is None:
        return Web(token_file=token_file)
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        raise ConfigurationError(f"{path}: expected HOST:PORT such as 127.0.0.1:8080, was {listen!r}")
    if host not in LOOPBACK and token_file is None:
        raise ConfigurationError(
            f"{path}: {host} can be reached from other machines; name a file with a token (web.token_file), or listen "
            "on 127.0.0.1"
        )
    return Web(host, int(port), token_file)
