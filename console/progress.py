"""Show progress on stderr: a bar in a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(label: str, source: str, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show the progress of reading a file; yield a function to call with the bytes of each batch."""
    path = Path(source)
    if quiet or not sys.stderr.isatty() or source == "-" or path.suffix in (".gz", ".zst") or not path.is_file():
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
    """Show a count whose end is not known; yield a function to call with each increment."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description} {task.completed:.0f}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda count: progress.advance(task, count)
