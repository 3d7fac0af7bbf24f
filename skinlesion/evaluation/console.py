"""Tables for people, on stdout."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}


def show_metrics(title: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Print a row for each model.

    Args:
        title: Stands above the table.
        rows: Names, and metrics with `intervals`.
    """
    cells = [(name, *(_cell(measured, metric) for metric in _COLUMNS)) for name, measured in rows]
    show_table(title, ("model", *_COLUMNS.values()), cells)


def show_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right.

    Args:
        title: Stands above the table.
        headings: Of the columns.
        rows: Cells; without rows a line says that there are none.
    """
    console = Console(width=120)
    if not rows:
        console.print(f"{title}: none")
        return
    table = Table()
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(title, table, sep="\n")


def _cell(measured: dict[str, Any], metric: str) -> str:
    low, high = measured["intervals"][metric]
    return f"{measured[metric]:.3f} [{low:.3f}, {high:.3f}]"
