"""Progress of work that is not a training epoch: a bar on a terminal, now and then a line elsewhere."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

log = logging.getLogger(__name__)

_SECONDS = 20.0  # between two lines, at least


def track(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Go through `items` and show on stderr how many are done.

    Args:
        items: Worked on by the caller, one by one.
        label: Describes the work.
        total: Number of items.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _with_lines(items, label, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(items, total=total, description=label)


def _with_lines(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Log a line for each tenth that is done, unless the last one is fresh; short work stays silent."""
    tenth, said = 0, time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if done * 10 // max(total, 1) > tenth and time.monotonic() - said >= _SECONDS:
            tenth, said = done * 10 // total, time.monotonic()
            log.info("%s: %d of %d", label, done, total)
