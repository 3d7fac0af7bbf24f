"""Tables on stdout."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}


def show_metrics(title: str, rows: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Print a table with a row for each model.

    Args:
        title: Printed above the table.
        rows: Name of each model, and its metrics with their `intervals`.
    """
    cells = [(name, *(_cell(measured, metric) for metric in _COLUMNS)) for name, measured in rows]
    show_table(title, ("model", *_COLUMNS.values()), cells)


def show_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first column aligned to the left and the others to the right; without rows, one line.

    Args:
        title: Printed above the table.
        headings: One a column.
        rows: Cells of each row.
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


def show_points(title: str, points: Sequence[dict[str, Any]]) -> None:
    """Print the rates at operating points, leaving out those without a threshold."""
    rates = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}
    cells = [
        (
            f"{each['target']}, {each['sensitivity']:.0%} wanted",
            *(with_interval(each["numbers"][rate]) for rate in rates),
        )
        for each in points
        if each["numbers"]
    ]
    show_table(title, ("flagged for", *rates.values()), cells)


def with_interval(found: dict[str, Any], *, sign: bool = False) -> str:
    """Format a number with its interval.

    Args:
        found: `value`, `low` and `high`, each None where it cannot be computed.
        sign: Whether positive numbers have a sign too, as differences do.
    """
    if found["value"] is None:
        return "not computable"
    form = "+.3f" if sign else ".3f"
    if found["low"] is None:
        return f"{found['value']:{form}} [no interval]"
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def _cell(measured: dict[str, Any], metric: str) -> str:
    low, high = measured["intervals"][metric]
    return with_interval({"value": measured[metric], "low": low, "high": high})
