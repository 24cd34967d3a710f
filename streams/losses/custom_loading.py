"""Import the losses that users write themselves, by their name in the configuration."""

from __future__ import annotations

import hashlib
import importlib
import inspect

from streams.losses.custom import OWN_LOSSES
from unship.errors import ConfigurationError


def load_own_loss(name: str, path: str) -> str:
    """Import and register `pkg.mod:fn`, and return the SHA-256 of its module's source.

    The digest is that of the whole module, because the function may call others in it.

    Raises:
        ConfigurationError: There is no such function; with the path inside the configuration.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        source = inspect.getsource(module)
    except Exception as error:
        raise ConfigurationError(
            f"{path}: {name} cannot be imported: {type(error).__name__}: {error}; "
            "install its module, or add its folder to PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigurationError(f"{path}: module {module_name} has no function {function_name!r}; correct the name")
    digest = hashlib.sha256(source.encode()).hexdigest()
    OWN_LOSSES[name, digest] = function
    return digest
