"""Which losses there are: which bound each needs, which target each fits, and what a configuration makes of them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from detectors.base import Floats
from streams.losses.classes import answered_no, brier, log_loss, precision, recall, truly_no, zero_one
from streams.losses.columns import LossSpec, Pairs, Truths
from streams.losses.custom import own_loss
from streams.losses.numbers import absolute, engagement, latency, not_used, ranking, squared
from unship.errors import ConfigurationError


class Loss(msgspec.Struct, frozen=True):
    """What is known of a loss: its function, the kinds of target it fits, and its bound, if it needs one.

    `says_nothing` tells of which outcomes the loss is not meant to say anything.
    """

    compute: Callable[[Pairs, LossSpec, str], Floats]
    kinds: tuple[str, ...]
    bound: str = ""
    example: float = 1.0
    bound_below: float = 1e6
    says_nothing: Callable[[Pairs], Truths] | None = None


OF_CLASSES = ("binary", "multiclass")
KINDS = (*OF_CLASSES, "regression", "ranking", "custom")
#: Takes the name of a user's own loss and its path in the configuration, and returns the digest of its source.
LoadOwnLoss = Callable[[str, str], str]
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
LOSSES: dict[str, Loss] = {
    "zero_one": Loss(zero_one, OF_CLASSES),
    "brier": Loss(brier, OF_CLASSES),
    "log": Loss(log_loss, OF_CLASSES, "cap", 4),
    "precision": Loss(precision, ("binary",), says_nothing=answered_no),
    "recall": Loss(recall, ("binary",), says_nothing=truly_no),
    # Amounts of money or bytes are scaled by more than any cap of a logarithm.
    "absolute": Loss(absolute, ("regression",), "scale", 10, 1e15),
    "squared": Loss(squared, ("regression",), "scale", 10, 1e15),
    "ranking": Loss(ranking, ("ranking",)),
    "engagement": Loss(engagement, KINDS, says_nothing=not_used),
    "latency": Loss(latency, KINDS, "objective_ms", 200, 1e9),
}
#: What to write instead where a loss does not fit the kind of target.
_INSTEAD = {"regression": "{absolute: {scale: 10}}", "ranking": "ranking", "custom": '"pkg.mod:fn"'}


def loss_specs(
    entries: Sequence[str | dict[str, Any]], kind: str, path: str, load: LoadOwnLoss | None = None
) -> list[LossSpec]:
    """Read the configured losses of a target of this kind; the first is the primary one.

    `load` imports a user's own loss; where it is absent, such a loss is refused.

    Raises:
        ConfigurationError: for an unknown loss, one that does not fit the kind of target, a missing or senseless
            bound, or a loss that stands twice.

    >>> loss_specs([{"absolute": {"scale": 10}}], "regression", "losses")
    [LossSpec(name='absolute', bound=10.0, source=UNSET)]
    """
    specs = [_loss_spec(entry, kind, f"{path}[{i}]", load) for i, entry in enumerate(entries)]
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: expected at least one loss, each once, was {names}")
    return specs


def _loss_spec(entry: str | dict[str, Any], kind: str, path: str, load: LoadOwnLoss | None) -> LossSpec:
    if isinstance(entry, dict) and len(entry) != 1:
        raise ConfigurationError(
            f"{path}: expected one loss such as {{log: {{cap: 4}}}}, was {sorted(map(str, entry))}"
        )
    name, options = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
    if isinstance(name, str) and _OWN.fullmatch(name):
        if options:
            raise ConfigurationError(f"{path}: {name} takes no options, was {options}")
        if load is None:
            raise ConfigurationError(f"{path}: {name} is a function of yours, and none can be loaded here")
        return LossSpec(name, source=load(name, path))
    if name not in LOSSES:
        raise ConfigurationError(f'{path}: unknown loss {name!r}; known are {", ".join(LOSSES)}, "pkg.mod:fn"')
    loss = LOSSES[name]
    if kind not in loss.kinds:
        raise ConfigurationError(
            f"{path}: {name} judges targets of kind {' or '.join(loss.kinds)}, and target.kind is {kind}; "
            f"write losses: [{_INSTEAD.get(kind, 'zero_one')}], or correct target.kind"
        )
    if not loss.bound:
        if options:
            raise ConfigurationError(f"{path}: {name} takes no options, was {options}")
        return LossSpec(name)
    if not isinstance(options, dict) or set(options) != {loss.bound}:
        raise ConfigurationError(
            f"{path}: {name} needs its bound, for example {{{name}: {{{loss.bound}: {loss.example:g}}}}}; was {options}"
        )
    bound = options[loss.bound]
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < loss.bound_below:
        raise ConfigurationError(
            f"{path}.{loss.bound}: expected a number above 0 and below {loss.bound_below:.0f}, was {bound!r}"
        )
    return LossSpec(name, float(bound))


def loss_columns(pairs: Pairs, specs: Sequence[LossSpec], kind: str) -> Floats:
    """Return an array of shape (losses, pairs)."""
    rows = [
        LOSSES[spec.name].compute(pairs, spec, kind) if spec.name in LOSSES else own_loss(pairs, spec) for spec in specs
    ]
    return np.stack(rows) if rows and len(pairs.truths) else np.zeros((len(specs), len(pairs.truths)))


def unusable(pairs: Pairs, spec: LossSpec, column: Floats) -> Truths:
    """Return which entries of a loss's column are NaN although the loss is about them."""
    missing = np.isnan(column)
    if not spec.of_engagement:
        # A truth that nobody told is not one of the wrong kind.
        missing &= np.fromiter((truth is not None for truth in pairs.truths), np.bool_, len(pairs.truths))
    says_nothing = LOSSES[spec.name].says_nothing if spec.name in LOSSES else None
    if says_nothing is not None and missing.any():
        missing &= ~says_nothing(pairs)
    return missing
