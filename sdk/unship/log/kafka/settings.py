"""Turn the address of a Kafka log and its security settings into what every aiokafka client takes.

Producers, consumers and the administration client take the same arguments for this, so the monitor, the fleets and
the command line all connect alike. aiokafka itself is not imported here.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unship.errors import ConfigurationError
from unship.log.kafka.access import VARIABLES, Security, parse_log, security_from
from unship.topics import PREFIX, TopicNames

__all__ = ["Security", "TopicNames", "client_options", "parse_log", "topic_names"]

PREFIX_VARIABLE = "UNSHIP_TOPIC_PREFIX"
PASSWORD_BYTES_MAX = 4_096


def topic_names(environment: Mapping[str, str] | None = None) -> TopicNames:
    """Return the names of the topics, with the prefix that the environment's UNSHIP_TOPIC_PREFIX names."""
    return TopicNames((os.environ if environment is None else environment).get(PREFIX_VARIABLE, PREFIX))


def client_options(
    log: str,
    security: Security | None = None,
    *,
    client_id: str = "unship",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments with which any aiokafka client connects to a log.

    Args:
        log: `kafka://HOST:PORT[,HOST:PORT]`.
        security: The credentials; without it, those of the environment's UNSHIP_SECURITY_* variables.
        client_id: Under which the broker's logs and quotas know this client.
        folder: What relative names of files are relative to; without it, the current folder.
        environment: In place of the process's own.

    Returns:
        `bootstrap_servers`, `client_id`, `security_protocol`, and as far as needed `ssl_context` and `sasl_*`.

    Raises:
        ConfigurationError: A setting is wrong, or a file that it names cannot be used.
    """
    path = "kafka.security."
    if security is None:
        security, path = security_from(os.environ if environment is None else environment), VARIABLES
    else:
        security.check(path)
    protocol = security.protocol_used
    options: dict[str, Any] = {
        "bootstrap_servers": parse_log(log),
        "client_id": client_id,
        "security_protocol": protocol,
    }
    files = _Files(security, folder or Path(), path)
    if protocol.endswith("SSL"):
        options["ssl_context"] = files.tls()
    if protocol.startswith("SASL_"):
        options["sasl_mechanism"] = security.mechanism
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = security.password if security.password is not None else files.password()
    return options


class _Files:
    """Read the files that the settings name, and name the setting if that fails."""

    def __init__(self, security: Security, folder: Path, path: str) -> None:
        self._security = security
        self._folder = folder
        self._path = path

    def _setting(self, field: str) -> str:
        return self._path + (field.upper() if self._path == VARIABLES else field)

    def _file(self, field: str) -> Path | None:
        name = getattr(self._security, field)
        return None if name is None else self._folder / name

    def password(self) -> str:
        """Return the content of the password's file without the line's end."""
        file, setting = self._file("password_file"), self._setting("password_file")
        assert file is not None, "checked with the other settings"
        try:
            with file.open("rb") as stream:
                content = stream.read(PASSWORD_BYTES_MAX + 1)
            password = content.decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{setting}: {file} cannot be read as UTF-8 text: {error}") from error
        if not password or len(content) > PASSWORD_BYTES_MAX:
            found = f"more than {PASSWORD_BYTES_MAX} bytes" if password else "nothing"
            raise ConfigurationError(f"{setting}: {file} holds {found}, expected one line with a password")
        return password

    def tls(self) -> ssl.SSLContext:
        """Return the context that checks the broker's name and certificate, and shows the client's own."""
        authorities, certificate, key = self._file("ca_file"), self._file("cert_file"), self._file("key_file")
        try:
            context = ssl.create_default_context(cafile=authorities)
        except (OSError, ValueError) as error:
            setting = self._setting("ca_file")
            raise ConfigurationError(f"{setting}: {authorities} holds no certificates in PEM form: {error}") from error
        if certificate is not None:
            setting = self._setting("key_file")
            try:
                context.load_cert_chain(certificate, key, password=self._refuse_to_ask)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"{setting}: {certificate} and {key} do not belong together: {error}"
                ) from error
        return context

    def _refuse_to_ask(self) -> str:
        # OpenSSL would ask on the terminal, and a service would wait there for ever.
        raise ConfigurationError(
            f"{self._setting('key_file')}: the key is encrypted; store it decrypted, readable by this process only"
        )
