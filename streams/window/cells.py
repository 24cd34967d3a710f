"""Cells: predictions of one series with the same slice values. A block of predictions is coded by them.

One lookup for each prediction finds everything that its model, version, role and slices decide; from there on it is a
small number in a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np

from detectors.base import Bools, Ints
from streams.ledger.records import Coded
from streams.window.decoding import Shape
from streams.window.series import SeriesTable
from streams.window.slice_values import shortened, text_bytes

CELLS_MAX: Final = 65_536
"""A table with so many is left for a new one: a slice may have any number of values."""

BYTES_MAX: Final = 64 * 1_048_576
KEY_BYTES: Final = 512
"""A table whose keys take more bytes is left, too: about so many each, and four for each character of a slice twice."""

NO_CELL: Final = -1

FEW: Final = 64
"""Of so few rows, a loop over them takes less time than a dozen array operations."""


_SERIES, _MODEL, _HORIZON, _EARLY, _USUAL, _ROW, _TEXT, _KIND, _SLICES = range(9)

KINDS: Final = ("", "binary", "multiclass")
"""The kinds of targets that have classes, by number; without a name are all others."""


class Cells:
    """Numbers cells by first appearance. `dimensions` are all configured slices, of whatever model."""

    def __init__(self, series: SeriesTable, dimensions: Sequence[str]) -> None:
        self.series = series
        self.dimensions = tuple(dimensions)
        self._known: dict[tuple[Any, ...], int] = _Missing(self._add)
        # By which parts of a key narrow predictions have.
        self._by_layout: dict[tuple[Any, ...], dict[tuple[Any, ...], int]] = {}
        self._keys: list[tuple[Any, ...]] = []
        # Series, model, horizon, early, whether the model is usual, the bytes of numbers and of text that an outcome
        # takes in a ledger record, the kind of its classes, and the number of the value of each slice.
        self._table = np.zeros((_SLICES + len(self.dimensions), 64), np.int64)
        # About how many bytes the keys take.
        self._bytes = 0
        self._numbers: list[dict[Any, int]] = [{} for _ in self.dimensions]
        self._values: list[list[Any]] = [[] for _ in self.dimensions]

    @property
    def full(self) -> bool:
        """Return whether a new table should be begun."""
        return len(self._keys) >= CELLS_MAX or self._bytes >= BYTES_MAX

    @property
    def series_in_use(self) -> set[int]:
        """The codes of all series."""
        return set(self._table[_SERIES, : len(self._keys)].tolist())

    def codes(self, shape: Shape, items: Sequence[Any]) -> Ints:
        """Return the cells of narrow predictions of one shape."""
        named = [name for name in self.dimensions if name in shape.slices]
        role = ("role",) if "role" in shape.fields else ()
        paths = ["model", "version", *role, *(f"slices.s{shape.slices.index(name)}" for name in named)]
        # One call in C for each prediction makes the whole key, and one finds its cell.
        keys: Iterable[Any] = map(attrgetter(*paths), items)
        if shape.logical.intersection(named):
            keys = (tuple(map(_marked, key)) for key in keys)
        known = self._by_layout.get((bool(role), *named))
        if known is None:
            known = self._by_layout[bool(role), *named] = _Missing(partial(self._of_layout, bool(role), named))
        return np.fromiter(map(known.__getitem__, keys), np.int64, len(items))

    def _of_layout(self, with_role: bool, named: list[str], key: tuple[Any, ...]) -> int:
        """Return the cell of a key that has some of the dimensions only."""
        model, version, *rest = key
        role = rest.pop(0) if with_role else "live"
        self._bytes += KEY_BYTES + 8 * sum(len(value) for value in rest if value.__class__ is str)
        values = {name: shortened(value) for name, value in zip(named, rest, strict=True)}
        return self._known[model, version, role, *(values.get(name) for name in self.dimensions)]

    def code_of(self, code: int, values: Iterable[Any]) -> int:
        """Return the cell of one prediction of a known series; the arguments are what `key_of` returns."""
        series = self.series[code]
        given = dict(zip(self.series.rules[code].slices_by, values, strict=True))
        key = (series.model, series.version, series.role, *(_marked(given.get(name)) for name in self.dimensions))
        return self._known[key]

    def _add(self, key: tuple[Any, ...]) -> int:
        code = self.series.code(key[0], key[1], key[2])
        if len(self._keys) == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        rule, number = self.series.rules[code], len(self._keys)
        self._keys.append(key)
        kept = rule.slices_by
        codes = [
            self._number(place, value) if value is not None and self.dimensions[place] in kept else -1
            for place, value in enumerate(key[3:])
        ]
        model = self.series.model_number(key[0])
        text = text_bytes((key[1], key[2], *(each for each, n in zip(key[3:], codes, strict=True) if n >= 0)))
        kind = KINDS.index(rule.classes)
        self._table[:, number] = (
            code,
            model,
            rule.horizon_ms,
            rule.early_ms,
            rule.usual,
            rule.row_bytes,
            text,
            kind,
            *codes,
        )
        return number

    def _number(self, place: int, value: Any) -> int:
        numbers = self._numbers[place]
        number = numbers.setdefault(value, len(numbers))
        if number == len(self._values[place]):
            self._values[place].append(_plain(value))
        return number

    def key_of(self, cell: int) -> tuple[int, tuple[Any, ...]]:
        """Return the series of a cell, and the values of the slices that its model keeps."""
        code = int(self._table[_SERIES, cell])
        return code, tuple(self._value(name, cell) for name in self.series.rules[code].slices_by)

    def _value(self, name: str, cell: int) -> Any:
        place = self.dimensions.index(name)
        number = int(self._table[_SLICES + place, cell])
        return None if number < 0 else self._values[place][number]

    def series_of(self, cells: Ints) -> Ints:
        """Return the series of cells."""
        return np.take(self._table[_SERIES], cells)

    def kinds_of(self, cells: Ints) -> Ints:
        """Return the numbers of the kinds of classes that cells have, 0 for none."""
        return np.take(self._table[_KIND], cells)

    def models_of(self, cells: Ints) -> Ints:
        """Return the numbers of the models of cells."""
        return np.take(self._table[_MODEL], cells)

    def usual(self, cells: Ints) -> Bools:
        """Return which cells are known, of models that wait for nothing but a truth."""
        usual: Bools = np.logical_and(np.take(self._table[_USUAL], cells), cells != NO_CELL)
        return usual

    def reach_of(self, cells: Ints) -> tuple[Ints, Ints]:
        """Return the horizons and early times of cells, in milliseconds."""
        return self._table[_HORIZON][cells], self._table[_EARLY][cells]

    def text_bytes_of(self, cells: Ints) -> Ints:
        """Return how many bytes the versions, roles and slices of cells take in a ledger record."""
        return np.take(self._table[_TEXT], cells)

    def row_bytes_of(self, cells: Ints) -> Ints:
        """Return how many bytes an outcome of each cell takes in a ledger record besides its source, at most."""
        sizes: Ints = np.take(self._table[_ROW], cells) + np.take(self._table[_TEXT], cells)
        return sizes

    def slice_of(self, name: str, cells: Ints) -> Coded:
        """Return the values that cells have of a slice, coded by first occurrence."""
        return recoded(*self.numbers_of(name, cells))

    def numbers_of(self, name: str, cells: Ints) -> tuple[Ints, list[Any]]:
        """Return the number of the value that each cell has of a slice, -1 for none, and all its values."""
        place = self.dimensions.index(name)
        return self._table[_SLICES + place][cells], self._values[place]

    def save(self) -> SavedCells:
        """Return everything, by series."""
        series = self._table[_SERIES, : len(self._keys)].tolist()
        return SavedCells([[code, *map(_plain, key[3:])] for code, key in zip(series, self._keys, strict=True)])

    def load(self, saved: SavedCells) -> None:
        """Load what `save` returned into a new table over the same series."""
        for code, *values in saved.cells:
            series = self.series[code]
            self._known[series.model, series.version, series.role, *map(_marked, values)]


class SavedCells(msgspec.Struct, frozen=True):
    """Saved `Cells`: the series of each, and its values of all slices."""

    cells: list[list[Any]]


class _Missing(dict[tuple[Any, ...], int]):
    """Remembers what a function returns."""

    def __init__(self, add: Any) -> None:
        super().__init__()
        self._add = add

    def __missing__(self, key: tuple[Any, ...]) -> int:
        code: int = self._add(key)
        self[key] = code
        return code


def recoded(codes: Ints, values: Sequence[Any]) -> Coded:
    """Return a column coded by first occurrence, with only the values that occur.

    >>> coded = recoded(np.array([2, -1, 0, 2]), ["a", "b", "c"])
    >>> coded.values, coded.codes.tolist()
    (['c', 'a'], [0, -1, 1, 0])
    """
    if codes.size <= FEW:
        numbers_of: dict[int, int] = {}
        found = [-1 if code < 0 else numbers_of.setdefault(code, len(numbers_of)) for code in codes.tolist()]
        return Coded([values[code] for code in numbers_of], np.array(found, np.int64))
    if len(values) > 4 * codes.size:
        # Of many values few occur: a table over all of them would cost more than sorting.
        occurring, codes = np.unique(codes, return_inverse=True)
        none = int(occurring[:1].sum() < 0)
        return recoded(codes.astype(np.int64) - none, [values[place] for place in occurring[none:].tolist()])
    # In reverse, so that the first occurrence is written last; -1 goes to the last place.
    first = np.full(len(values) + 1, codes.size, np.int64)
    first[codes[::-1]] = np.arange(codes.size - 1, -1, -1)
    occurring = np.flatnonzero(first[:-1] < codes.size)
    occurring = occurring[np.argsort(first[occurring], kind="stable")]
    numbers = np.full(len(values) + 1, -1, np.int64)
    numbers[occurring] = np.arange(occurring.size)
    return Coded([values[place] for place in occurring.tolist()], numbers[codes])


def _marked(value: Any) -> Any:
    """Return a value such that true and 1, which are equal in a dictionary, are two."""
    return (value,) if value.__class__ is bool else value


def _plain(value: Any) -> Any:
    return value[0] if value.__class__ is tuple else value
