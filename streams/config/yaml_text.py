"""Read the YAML of a configuration: safe, without repeated keys, and bounded in depth, in size and in its numbers.

A file of a few hundred bytes can mean gigabytes, because an alias repeats what its anchor names and may be nested.
So what a file expands to is counted while it is read, and it is refused before anything of it is made.
"""

from __future__ import annotations

from typing import Any

import yaml

from unship.errors import ConfigurationError

DEPTH_MAX = 50
"""Levels of nesting; a configuration has six."""

VALUES_MAX = 100_000
"""Keys, values, lists and mappings, aliases counted as what they repeat: 1,000 models of 100 settings."""

INTEGER_BITS_MAX = 64
_MERGE = "tag:yaml.org,2002:merge"


class _BoundedLoader(yaml.SafeLoader):
    """Load safe YAML; refuse what expands too far, and a repeated key, of which YAML would take the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._values
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ConfigurationError(f"line {line}: nested deeper than {DEPTH_MAX} levels; expected six at most")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise ConfigurationError(f"line {line}: an alias inside of what it repeats; write the values out")
        self._values += self._sizes[id(node)] if is_alias else 1
        if self._values > VALUES_MAX:
            raise ConfigurationError(
                f"line {line}: more than {VALUES_MAX} values, what aliases repeat included; write fewer"
            )
        if not is_alias:
            self._sizes[id(node)] = self._values - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise ConfigurationError(
                    f"key {key.value!r} is repeated (line {line}): a key is not given twice, remove one of them"
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        line = node.start_mark.line + 1
        too_large = f"line {line}: an integer of {len(node.value)} characters; expected one of at most 64 bits"
        try:
            value = int(super().construct_yaml_int(node))
        except ValueError as error:
            raise ConfigurationError(too_large) from error
        if value.bit_length() > INTEGER_BITS_MAX:
            raise ConfigurationError(too_large)
        return value


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)


def read_yaml(text: str) -> Any:
    """Return what a text of YAML holds: mappings, lists and plain values.

    Raises:
        ConfigurationError: It is no YAML, or it means more than a configuration holds.

    Example:
        >>> read_yaml("models: {fraud: {}}")
        {'models': {'fraud': {}}}
    """
    try:
        # The loader is a SafeLoader that only refuses more.
        return yaml.load(text, Loader=_BoundedLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"not valid YAML: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        # What PyYAML raises on a value that does not fit its tag, such as a date without such a day.
        raise ConfigurationError(f"not valid YAML: a value does not fit its type ({error})") from error
