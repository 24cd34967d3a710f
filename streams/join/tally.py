"""Counting what was not used, by reason, in a way that lets the count be taken once."""

from collections import Counter

#: What is counted of one log alone has no place in the other.
NOWHERE = (-1, -1)


class Tally(Counter[str]):
    """Counts by reason. Where places are kept, every change is also a row (reason, change, p, f).

    A reader of two logs that starts again reads some records twice and counts them twice. With the place that made it,
    a count is filtered by coverage like an outcome. `place` is set by the reader, before each record.

    >>> tally = Tally.placed(); tally.place = (7, -1); tally["DUPLICATE"] += 1; tally.rows
    [('DUPLICATE', 1, 7, -1)]
    """

    place: tuple[int, int] = NOWHERE
    rows: list[tuple[str, int, int, int]] | None = None

    @classmethod
    def placed(cls) -> "Tally":
        """Return a tally that keeps places."""
        tally = cls()
        tally.rows = []
        return tally

    def __setitem__(self, reason: str, count: int) -> None:
        """Set a count; the change gets the present place."""
        if self.rows is not None:
            self.rows.append((reason, count - self[reason], *self.place))
        super().__setitem__(reason, count)

    def take(self) -> list[tuple[str, int, int, int]]:
        """Return the rows since the last call, and forget them with their counts."""
        rows, self.rows = self.rows or [], []
        self.clear()
        return rows
