"""Progress on stderr: a bar in a terminal, nothing where nobody looks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(label: str, source: str, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show how far the reading of a file has come; yields what is to be called with each batch's bytes."""
    path = Path(source)
    if quiet or not sys.stderr.isatty() or source == "-" or path.suffix == ".gz" or not path.is_file():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=path.stat().st_size)
        yield lambda size: progress.advance(task, size)


@contextmanager
def counting(label: str, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show how much has been done where the end is not known; yields what is to be called with each further count."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description} {task.completed:.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda count: progress.advance(task, count)
