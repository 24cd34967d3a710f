"""Read `unship.yaml` from a file, with the process's environment."""

from __future__ import annotations

import os
from pathlib import Path

from streams.config.environment import without_values
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.losses.custom_loading import load_own_loss
from unship.errors import ConfigurationError

FILE_BYTES_MAX = 1_000_000


def load(path: Path | None, *, imports: bool = True) -> Config:
    """Read and resolve a configuration file; without a path, every model is observed with the defaults.

    Args:
        path: The file.
        imports: Whether the losses of one's own that it names are imported; if not, nothing can be judged with it.

    Raises:
        ConfigurationError: The file cannot be read or used; with the file, the path inside it, and the fix.
    """
    if path is None:
        return parse("")
    text = _read(path)
    try:
        return parse(text, os.environ, load_own_loss if imports else _unloaded)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _read(path: Path) -> str:
    try:
        # What has no size that is known before, such as a device, may have no end either.
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ConfigurationError(f"{path}: larger than {FILE_BYTES_MAX} bytes; is this the right file?")
        return data.decode()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error


def hidden(message: str, path: Path | None) -> str:
    """Return a message of any part of the program without the values that a configuration takes from the environment.

    Example:
        >>> hidden("no broker answers", None)
        'no broker answers'
    """
    if path is None:
        return message
    try:
        return without_values(message, _read(path), os.environ)
    except ConfigurationError:
        return message


def _unloaded(name: str, path: str) -> str:
    return ""
