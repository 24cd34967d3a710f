"""Reading the losses of a configuration: which there are, which bound each needs, which target each fits."""

from collections.abc import Sequence
from typing import Any

from streams.losses import LOSSES, LossSpec
from unship.errors import ConfigurationError

#: What to write instead where a loss does not fit the kind of target.
_INSTEAD = {"regression": "{absolute: {scale: 10}}"}


def loss_specs(entries: Sequence[str | dict[str, Any]], kind: str, path: str) -> list[LossSpec]:
    """Read the configured losses of a target of this kind; the first is the primary one.

    Raises:
        ConfigurationError: for an unknown loss, one that does not fit the kind of target, a missing or senseless
            bound, or a loss that stands twice.

    >>> loss_specs([{"absolute": {"scale": 10}}], "regression", "losses")
    [LossSpec(name='absolute', bound=10.0)]
    """
    specs = [_loss_spec(entry, kind, f"{path}[{i}]") for i, entry in enumerate(entries)]
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: expected at least one loss, each once, was {names}")
    return specs


def _loss_spec(entry: str | dict[str, Any], kind: str, path: str) -> LossSpec:
    if isinstance(entry, dict) and len(entry) != 1:
        raise ConfigurationError(
            f"{path}: expected one loss such as {{log: {{cap: 4}}}}, was {sorted(map(str, entry))}"
        )
    name, options = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
    if name not in LOSSES:
        raise ConfigurationError(f"{path}: unknown loss {name!r}; known are {', '.join(LOSSES)}")
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
