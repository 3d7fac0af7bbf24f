"""Messages and progress of a command: lines and bars on the terminal, a log file beside the results."""

import logging
import shlex
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO, TypeVar

from skinlesion.errors import printable

LOG_FILE = "run.log"

Item = TypeVar("Item")

log = logging.getLogger(__name__)

_SECONDS = 20.0  # between two lines, at least
_messages: MemoryHandler | None = None


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def next_command(*words: str) -> str:
    """A command line that can be copied to a shell, whatever its paths hold."""
    return f"Next: {shlex.join(('skinlesion', *words))}"


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes each message as a line of its own, over the bar that another member of a sweep has just drawn."""

    def format(self, record: logging.LogRecord) -> str:
        """Go back to the start of the line and clear it, on a terminal alone."""
        text = printable(super().format(record))
        return f"\r\x1b[2K{text}" if self.stream.isatty() else text


@contextmanager
def collect_messages() -> Iterator[None]:
    """Collect the messages of a command's run until `log_to` names the folder of their file."""
    global _messages
    root = logging.getLogger()
    _messages = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    root.addHandler(_messages)
    try:
        yield
    finally:
        root.removeHandler(_messages)
        target = _messages.target
        _messages.close()  # writes what is left
        if target is not None:
            target.close()
        _messages = None


def log_to(folder: Path) -> None:
    """Write the run's messages, those so far and those to come, to run.log in a folder.

    Does nothing outside a command: callers from Python configure logging themselves.

    Args:
        folder: Folder of the results; created if missing. An existing log is continued.
    """
    if _messages is not None and _messages.target is None:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / LOG_FILE, encoding="utf-8")
        file.setFormatter(_PlainFormatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        _messages.setTarget(file)
        _messages.capacity = 1  # from now on each message is written at once


def log_to_file_alone(message: str, level: int = logging.INFO) -> None:
    """Write a message that the terminal does not need to the run's log."""
    if _messages is not None:
        _messages.handle(logging.LogRecord("skinlesion", level, __file__, 0, message, None, None))


def quiet(rank: int) -> None:
    """Silence advice of libraries that does not apply here; everything else still comes through.

    Args:
        rank: Rank of this process, 0 or more; processes after the first log warnings and errors only.
    """
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)  # devices found, seeds set, tips of the day
    if logging.getLogger().handlers:
        logging.getLogger("lightning").handlers.clear()  # each warning would come twice
    for message in (
        ".*does not have many workers.*",  # images come decoded out of a cache, or as feature maps
        ".*number of training batches.*smaller than the logging interval.*",  # epochs are logged, not steps
        ".*Checkpoint directory .* exists and is not empty.*",  # a run is continued on purpose
        ".*callbacks used to create the checkpoint need to be provided.*",  # an earlier version's
        ".*module\\(s\\) in eval mode at the start of training.*",  # the frozen stages, on purpose
        ".*Grad strides do not match bucket view strides.*",  # of 1x1 kernels: a matter of speed
        ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 on newer torch
    ):
        warnings.filterwarnings("ignore", message)


def track(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Go through `items` and show on stderr how many are done.

    Args:
        items: Items that the caller works on, one by one.
        label: Describes the work.
        total: Number of items.
    """
    from rich.console import Console  # takes a tenth of a second, which refusals and help do without
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
