"""Describe the address of a Kafka log and the credentials: plain data, read from a URL and from settings.

Credentials are never part of the URL, because URLs end up in logs, process lists and recordings. They come from the
section `kafka.security` of a configuration or from variables of the environment, and both are checked here with the
same messages. What needs the disk, a file with a password or a certificate, is done in `unship.log.kafka.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from unship.errors import ConfigurationError

SCHEME: Final = "kafka://"
PORT: Final = 9092
BROKERS_MAX: Final = 64
VARIABLES: Final = "UNSHIP_SECURITY_"
"""Variables of the environment are this and the name of a field of `Security` in capitals."""

Protocol: TypeAlias = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism: TypeAlias = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Security(Struct, frozen=True, forbid_unknown_fields=True):
    """Describe how a client authenticates, and how it verifies the broker.

    Attributes:
        protocol: As Kafka calls it; without it the strongest one that the other settings allow: `SASL_SSL` with a
            username, `SSL` with a certificate or an authority alone, else `PLAINTEXT`.
        mechanism: Of SASL.
        username, password: Of SASL; the password may be in `password_file` instead.
        ca_file: The authorities that sign brokers' certificates, PEM; without it those of the system.
        cert_file, key_file: The client's own certificate and its private key, PEM, for brokers that ask for one.
    """

    protocol: Protocol | None = None
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __repr__(self) -> str:
        """Leave the password out: a representation ends up in a traceback or a log."""
        names = [name for name in self.__struct_fields__ if name != "password" and getattr(self, name) is not None]
        return f"Security({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    @property
    def protocol_used(self) -> Protocol:
        """Return the protocol of the other settings where none is given."""
        if self.protocol is not None:
            return self.protocol
        if self.username is not None:
            return "SASL_SSL"
        return "SSL" if self.ca_file is not None or self.cert_file is not None else "PLAINTEXT"

    def check(self, path: str = "kafka.security.") -> None:
        """Refuse settings that contradict each other; `path` precedes the setting's name in the message.

        Raises:
            ConfigurationError: With the setting, what it contradicts, and what to write.

        Example:
            >>> Security(username="monitor").check()
            Traceback (most recent call last):
                ...
            unship.errors.ConfigurationError: kafka.security.username: there is no password; write password or \
password_file
        """
        protocol = self.protocol_used
        sasl, tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
        if self.password is not None and self.password_file is not None:
            raise ConfigurationError(f"{path}password: both password and password_file are given; keep one of them")
        secret = self.password is not None or self.password_file is not None
        if self.username is not None and not secret:
            raise ConfigurationError(f"{path}username: there is no password; write password or password_file")
        if self.username is None and (secret or sasl):
            raise ConfigurationError(f"{path}username: missing, and {'a password' if secret else protocol} needs it")
        if self.username is not None and not sasl:
            raise ConfigurationError(f"{path}protocol: {protocol} sends no username; write SASL_SSL")
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigurationError(f"{path}cert_file: a certificate needs its key and a key its certificate")
        if not tls and (self.ca_file is not None or self.cert_file is not None):
            wanted = "SASL_SSL" if sasl else "SSL"
            raise ConfigurationError(f"{path}protocol: {protocol} uses no certificates; write {wanted}")


def security_from(environment: Mapping[str, str]) -> Security:
    """Return the security settings that variables such as `UNSHIP_SECURITY_USERNAME` describe.

    Raises:
        ConfigurationError: A variable is unknown or has a value that is; settings contradict each other.

    Example:
        >>> given = {"UNSHIP_SECURITY_USERNAME": "fleet", "UNSHIP_SECURITY_PASSWORD_FILE": "secret"}
        >>> security_from(given).protocol_used
        'SASL_SSL'
        >>> security_from({"UNSHIP_SECURITY_USER": "fleet"})
        Traceback (most recent call last):
            ...
        unship.errors.ConfigurationError: UNSHIP_SECURITY_USER: unknown; known are UNSHIP_SECURITY_PROTOCOL, \
UNSHIP_SECURITY_MECHANISM, UNSHIP_SECURITY_USERNAME, UNSHIP_SECURITY_PASSWORD, UNSHIP_SECURITY_PASSWORD_FILE, \
UNSHIP_SECURITY_CA_FILE, UNSHIP_SECURITY_CERT_FILE, UNSHIP_SECURITY_KEY_FILE
    """
    known = {VARIABLES + field.upper(): field for field in Security.__struct_fields__}
    choices = {"protocol": get_args(Protocol), "mechanism": get_args(Mechanism)}
    given: dict[str, str] = {}
    for variable, value in environment.items():
        # In the environment of a container, an empty variable means "not set".
        if not variable.startswith(VARIABLES) or not value:
            continue
        if variable not in known:
            raise ConfigurationError(f"{variable}: unknown; known are {', '.join(known)}")
        field = known[variable]
        if field in choices and value not in choices[field]:
            raise ConfigurationError(f"{variable}: expected one of {', '.join(choices[field])}, was {value!r}")
        given[field] = value
    security = Security(**given)  # type: ignore[arg-type]  # the two that are not any text are checked above
    security.check(VARIABLES)
    return security


def parse_log(log: str) -> list[str]:
    """Return the brokers that `kafka://HOST:PORT[,HOST:PORT]` names, as `HOST:PORT` each.

    Raises:
        ConfigurationError: It names no broker, or holds more than brokers.

    Example:
        >>> parse_log("kafka://kafka-1:9092,kafka-2,[::1]:9093")
        ['kafka-1:9092', 'kafka-2:9092', '[::1]:9093']
        >>> parse_log("kafka://:9092")
        Traceback (most recent call last):
            ...
        unship.errors.ConfigurationError: log: expected kafka://HOST:PORT[,HOST:PORT], was 'kafka://:9092'
    """
    if "@" in log:
        # The text is not repeated, because the part before the @ is a password.
        raise ConfigurationError(
            "log: no credentials in the address, since addresses are written to logs: "
            f"use the section kafka.security, or {VARIABLES}USERNAME and {VARIABLES}PASSWORD_FILE"
        )
    if not log.startswith(SCHEME):
        raise ConfigurationError(f"log: expected kafka://HOST:PORT[,HOST:PORT], was {log!r}")
    brokers = [_broker(part.strip(), log) for part in log[len(SCHEME) :].split(",")]
    if len(brokers) > BROKERS_MAX:
        raise ConfigurationError(f"log: {len(brokers)} brokers > {BROKERS_MAX}; a few of a cluster's brokers suffice")
    return brokers


def _broker(text: str, log: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    good_host = bool(host.strip("[]")) and (bracketed or not set(host) & set("[]:/?#")) and host.isprintable()
    if not good_host or " " in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigurationError(f"log: expected kafka://HOST:PORT[,HOST:PORT], was {log!r}")
    return f"{host}:{port}"
