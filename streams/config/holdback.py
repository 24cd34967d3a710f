"""Parse which share of the units an earlier version goes on answering, and check it."""

from __future__ import annotations

from actions.desired import SHARE_MAX
from streams.config.resolved import HoldbackPolicy
from streams.config.sections import HoldbackSection
from streams.config.units import NEVER, duration_ms, fraction, percent
from unship.errors import ConfigurationError

ALWAYS = "always"


def holdback_policy(section: HoldbackSection | None, path: str) -> HoldbackPolicy | None:
    """Return the resolved section, None where it is absent.

    Raises:
        ConfigurationError: A share is none, or raised downward, or the span to keep it is none.

    Example:
        >>> holdback_policy(HoldbackSection("5%", "30%"), "policy.holdback")
        HoldbackPolicy(share=0.05, raise_to=0.3, keep_ms=1209600000)
    """
    if section is None:
        return None
    if section.share is None:
        raise ConfigurationError(
            f"{path}.share: it is absent; write for example holdback: {{share: 5%}}, or leave holdback out"
        )
    share = _share(section.share, f"{path}.share")
    raise_to = share if section.raise_to is None else _share(section.raise_to, f"{path}.raise_to")
    if raise_to < share:
        raise ConfigurationError(
            f"{path}.raise_to: {percent(raise_to)} is less than share, {percent(share)}: a share only rises; raise "
            "raise_to, lower share, or leave raise_to out"
        )
    return HoldbackPolicy(share, raise_to, _keep(section.keep, f"{path}.keep"))


def _share(text: str | float, path: str) -> float:
    share = fraction(text, path)
    if not 0 < share <= SHARE_MAX:
        raise ConfigurationError(
            f"{path}: {percent(share)} is outside 0 % .. {percent(SHARE_MAX)}, 0 % excluded: the version that was "
            "deployed answers at least half; write for example 5%"
        )
    return share


def _keep(text: str | int, path: str) -> int:
    if text == ALWAYS:
        return NEVER
    span = duration_ms(text, path)
    if span < 1_000:
        raise ConfigurationError(f"{path}: {text} is shorter than a second; write for example 14d, or {ALWAYS}")
    return span
