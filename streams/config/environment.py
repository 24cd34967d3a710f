"""Put variables of the environment into a configuration, and keep their values out of messages.

A value may be a password. Messages reach terminals, logs of services and tickets, so they show `${NAME}` as it is in
the file, whatever part of the program wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from unship.errors import ConfigurationError

VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}")
_USE = re.compile(rf"\$\$\{{|{VARIABLE.pattern}|\$\{{")
"""A variable; `$${`, which is the text `${`; or the beginning of one that is not written as it must be."""

SHOWN_CHARS = 40
"""Messages show at most so much of a long value."""

SHORT_CHARS = 4
"""A value below this is replaced only as a word of its own, and only in the message about its own setting."""


class _Put(NamedTuple):
    """A text that came from the environment, how the file writes it, and the path of the setting."""

    text: str
    written: str
    path: str


class Environment:
    """The variables that a configuration may use, and those that it did use."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._puts: list[_Put] = []

    def expand(self, value: Any, path: str = "") -> Any:
        """Return a configuration with the values of its `${NAME}`; `${NAME:-default}` may be unset or empty.

        Raises:
            ConfigurationError: A variable is not set and has no default, or a `${` begins none.
        """
        if isinstance(value, dict):
            return {key: self.expand(item, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        text = _USE.sub(lambda found: self._value(found, path), value)
        if text != value.replace("$${", "${"):
            self._puts.append(_Put(text, value, path))
        return text

    def _value(self, found: re.Match[str], path: str) -> str:
        """Return the text in place of one use of a variable."""
        name, default = found["name"], found["default"]
        if name is None:
            if found[0] == "$${":
                return "${"
            place = f"{path}: character {found.start() + 1}: " if path else ""
            raise ConfigurationError(
                f"{place}`${{` begins no variable; write ${{NAME}} or ${{NAME:-default}}, or $${{ for the text itself"
            )
        known = self._variables.get(name)
        if default is not None and not known:
            return default
        if known is None:
            raise ConfigurationError(
                f"{path}: environment variable {name} is not set; set it, write the value, or give a default: "
                f"${{{name}:-value}}"
            )
        self._puts.append(_Put(known, f"${{{name}}}", path))
        return known

    def hidden(self, message: str) -> str:
        """Return a message with `${NAME}` in place of values of the environment.

        Example:
            >>> given = Environment({"TOKEN": "secret"})
            >>> given.expand({"labels": {"horizon": "${TOKEN}"}})
            {'labels': {'horizon': 'secret'}}
            >>> given.hidden("labels.horizon: expected a duration, was 'secret'")
            "labels.horizon: expected a duration, was '${TOKEN}'"
        """
        path, _, _ = message.partition(": ")
        return _replaced(message, (put for put in self._puts if len(put.text) >= SHORT_CHARS or put.path == path))


def without_values(message: str, text: str, variables: Mapping[str, str]) -> str:
    """Return a message without the values of those variables that the text of a configuration names.

    Example:
        >>> without_values("data/secret/log: no such file", "log: embedded:data/${TOKEN}/log", {"TOKEN": "secret"})
        'data/${TOKEN}/log: no such file'
    """
    names = {found["name"] for found in VARIABLE.finditer(text)}
    used = sorted(name for name in names if len(variables.get(name, "")) >= SHORT_CHARS)
    return _replaced(message, (_Put(variables[name], f"${{{name}}}", "") for name in used))


def _replaced(message: str, puts: Iterable[_Put]) -> str:
    written = {form: put.written for put in puts for form in _forms(put.text)}
    if not written:
        return message
    # All at once, the longest first, so that nothing is replaced in what was put in.
    forms = sorted(written, key=len, reverse=True)
    pattern = "|".join(re.escape(form) if len(form) >= SHORT_CHARS else _word(form) for form in forms)
    return re.sub(pattern, lambda match: written[match[0]], message)


def _word(form: str) -> str:
    return rf"(?<![\w.]){re.escape(form)}(?![\w.])"


def _forms(text: str) -> Iterator[str]:
    """Yield what messages may show of a text: all of it, its beginning, quoted, or as a number."""
    for form in (text, text.strip(), text[:SHOWN_CHARS], text.strip()[:SHOWN_CHARS]):
        if form:
            yield form
            yield repr(form)[1:-1]
    for number in (int, float):
        try:
            yield str(number(text))
        except (ValueError, OverflowError):
            continue
