"""Import single modules of river's package of drift detectors, without the package.

The package also imports river's data sets, and with them all of SciPy and scikit-learn: a second of processor time at
the start of every monitor, whose default detectors need neither.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any

import river


def drift_module(name: str) -> Any:
    """Return the module `river.drift.NAME`; the package has the same one if it is imported later.

    >>> drift_module("binary.ddm").DDM.__module__
    'river.drift.binary.ddm'
    """
    full = f"river.drift.{name}"
    loaded = sys.modules.get(full)
    if loaded is not None:
        return loaded
    folders = "/".join(full.split(".")[1:-1])
    spec = PathFinder.find_spec(full, [f"{path}/{folders}" for path in river.__path__])
    if spec is None or spec.loader is None:
        # It is no plain file, as in a zipped environment.
        return import_module(full)
    module = module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module
