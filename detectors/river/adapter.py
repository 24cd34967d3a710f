"""Adapt one of river's detectors to the protocol, from a table of its parameters and one of its state.

A class of this package names river's class, declares river's parameters with their checks, and lists in ``state`` the
fields of the river object that a snapshot holds (detectors.river.fields). Constructor, snapshot and restoring follow
from these, and so does the schema of the snapshot, ``content``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter as Argument
from inspect import Signature
from typing import Any, ClassVar, Self, TypeAlias, dataclass_transform

import msgspec
from numpy.typing import ArrayLike

from detectors.base import LossKind, Positions, checked_bit, checked_bits, checked_loss, checked_losses, positions
from detectors.river.fields import Field, plain
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError

Given: TypeAlias = Mapping[str, Any]
"""The parameters that come earlier in the table, as river takes them."""

Check: TypeAlias = Callable[[Any, Given], str]
"""Return what is expected of a parameter's value if it is not so, and nothing if it is."""


def between(low: float, high: float) -> Check:
    """Return the check of a number strictly between two others; NaN is not between anything."""
    return lambda value, given: "" if low < value < high else f"between {low:g} and {high:g}"


def at_least(least: int, below: float = float("inf")) -> Check:
    """Return the check of a number that is at least one number, and below another."""
    return lambda value, given: "" if least <= value < below else f"of at least {least}"


def whole(least: int, most: int | Callable[[Given], int]) -> Check:
    """Return the check of a whole number in ``[least, most]``, where ``most`` may depend on earlier parameters."""

    def expected(value: Any, given: Given) -> str:
        largest = most if isinstance(most, int) else most(given)
        fits = least <= value <= largest and value == int(value)
        return "" if fits else f"to be a whole number between {least} and {largest}"

    return expected


@dataclass(frozen=True, slots=True)
class Parameter:
    """Describe a parameter; None is a value only if it is the default."""

    default: Any
    checks: tuple[Check, ...]
    convert: Any
    """Its type, or a function to what river takes if the snapshot has a field of the parameter's name."""

    @property
    def schema(self) -> Any:
        """Return the type it has in a snapshot."""
        return self.convert | None if self.default is None else self.convert

    def accept(self, name: str, value: Any, given: Given) -> Any:
        """Return the value as river takes it, or raise ValueError."""
        if value is None and self.default is None:
            return None
        for check in self.checks:
            if expected := check(value, given):
                raise ValueError(f"expected {name} {expected}, was {repr(value) if isinstance(value, str) else value}")
        return self.convert(value)


def parameter(*checks: Check, default: Any, convert: Any = None) -> Any:
    """Return a parameter for the table of a detector; its type is that of the default if nothing converts it."""
    return Parameter(default, checks, convert or type(default))


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(parameter,))
class RiverAdapter:
    """Feed one of river's detectors with losses, one after the other."""

    name: ClassVar[str]
    accepts: ClassVar[LossKind] = "binary"
    river: ClassVar[Callable[..., Any]]
    """river's class."""
    state: ClassVar[Mapping[str, Field]] = {}
    """What a snapshot holds of river's object, next to the parameters and whether the last loss was a change."""

    content: ClassVar[type[msgspec.Struct]]
    """The schema of a snapshot: the parameters as they were given, then the state."""
    _parameters: ClassVar[Mapping[str, Parameter]] = {}
    _fields: ClassVar[Mapping[str, Field]] = {}

    def __init_subclass__(cls) -> None:
        """Derive the signature and the schema from the two tables."""
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        cls._parameters = {**cls._parameters, **own}
        cls._fields = {"drift_detected": plain("_drift_detected", bool), **cls.state}
        cls.__signature__ = Signature(  # type: ignore[attr-defined]
            [Argument(name, Argument.KEYWORD_ONLY, default=made.default) for name, made in cls._parameters.items()]
        )
        # A field may have the name of a parameter that only starts it, as KSWIN's window has.
        schema = {name: made.schema for name, made in (cls._parameters | cls._fields).items()}
        cls.content = msgspec.defstruct(
            f"{cls.__name__}Snapshot", schema.items(), module=cls.__module__, frozen=True, forbid_unknown_fields=True
        )

    def __init__(self, **given: Any) -> None:
        bound = self.__signature__.bind(**given)  # type: ignore[attr-defined]
        bound.apply_defaults()
        accepted: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            accepted[name] = self._parameters[name].accept(name, value, accepted)
        vars(self).update(accepted)
        self._river = self.river(**accepted)

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        return bool(self._alarms([checked_bit(x) if self.accepts == "binary" else checked_loss(x)]))

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms inside this batch."""
        checked = checked_bits(losses) if self.accepts == "binary" else checked_losses(losses).tolist()
        return positions(self._alarms(checked))

    def _alarms(self, losses: list[Any]) -> list[int]:
        river, update, alarms = self._river, self._river.update, []
        for position, loss in enumerate(losses):
            update(loss)
            # The private field saves a property call per loss.
            if river._drift_detected and self._rose():
                alarms.append(position)
        return alarms

    def _rose(self) -> bool:
        """Return whether the change that was just found is a rise; some of these detectors find no other."""
        return True

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        given = {name: getattr(self, name) for name in self._parameters}
        state = {name: field.save(self._river) for name, field in self._fields.items()}
        return seal(self.name, self.content(**(given | state)))

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, cls.content)
        try:
            detector = cls(**{name: getattr(content, name) for name in cls._parameters})
            for name, field in cls._fields.items():
                field.put_back(detector._river, getattr(content, name))
            detector._resume(content)
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible {cls.name}: {error}") from error
        return detector

    def _resume(self, content: Any) -> None:
        """Check that the restored fields fit together, and set those that follow from them; raise ValueError."""
