"""Watch serving models through their own events and take a bad version back: what a serving fleet installs.

Names are loaded when first used, so that `import unship` in a serving process costs next to nothing and pulls in no
client of any log. `unship.Feedback` sends truths; the event that carries one is `unship.events.Feedback`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unship.codec import Limits, OtherLine, decode_line, decode_value, encode_line
    from unship.errors import ConfigurationError, RecordingError, SnapshotError, UnshipError
    from unship.events import Ack, Deployment, Event, OperatorAct, Prediction
    from unship.feedback import Feedback
    from unship.fleet import Fleet
    from unship.rejections import RejectCode, Rejection
    from unship.replica.replica import LATER
    from unship.schema import event_schemas

__all__ = [
    "LATER",
    "Ack",
    "ConfigurationError",
    "Deployment",
    "Event",
    "Feedback",
    "Fleet",
    "Limits",
    "OperatorAct",
    "OtherLine",
    "Prediction",
    "RecordingError",
    "RejectCode",
    "Rejection",
    "SnapshotError",
    "UnshipError",
    "decode_line",
    "decode_value",
    "encode_line",
    "event_schemas",
]

_MODULES = {
    "codec": ("Limits", "OtherLine", "decode_line", "decode_value", "encode_line"),
    "errors": ("ConfigurationError", "RecordingError", "SnapshotError", "UnshipError"),
    "events": ("Ack", "Deployment", "Event", "OperatorAct", "Prediction"),
    "feedback": ("Feedback",),
    "fleet": ("Fleet",),
    "replica.replica": ("LATER",),
    "rejections": ("RejectCode", "Rejection"),
    "schema": ("event_schemas",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
