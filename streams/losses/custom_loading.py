"""Importing the losses that users write themselves, by the name that stands in the configuration."""

import hashlib
import importlib
import inspect

from streams.losses.custom import OWN_LOSSES
from unship.errors import ConfigurationError


def load_own_loss(name: str, path: str) -> str:
    """Import `pkg.mod:fn`, keep it for the join, and return the SHA-256 of its module's source.

    The whole module counts, because the function may call others beside it.

    Raises:
        ConfigurationError: with the path inside the configuration, if there is no such function.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
        source = inspect.getsource(module)
    except Exception as error:
        raise ConfigurationError(
            f"{path}: {name} cannot be imported: {type(error).__name__}: {error}; "
            "its module must be installed, or its folder stand in PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigurationError(f"{path}: module {module_name} has no function {function_name!r}; correct the name")
    digest = hashlib.sha256(source.encode()).hexdigest()
    OWN_LOSSES[name, digest] = function
    return digest
