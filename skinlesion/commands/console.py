"""Tables on stdout."""

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from skinlesion.errors import printable
from skinlesion.metrics.classification import HEADLINE_NAMES
from skinlesion.metrics.decision import FlagMetrics
from skinlesion.metrics.estimate import MARK_NOTE, Estimate, Estimates, is_marked

_RATES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV"}


def show_metrics(title: str, rows: Sequence[tuple[str, Estimates]], *, heading: str = "model") -> None:
    """Print the headline metrics of each model: rows of its name, under `heading`, and metrics."""
    cells = [(name, *(with_interval(metrics[metric]) for metric in HEADLINE_NAMES)) for name, metrics in rows]
    show_table(title, (heading, *HEADLINE_NAMES.values()), cells)


def show_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first column aligned to the left and the others to the right; without rows, one line."""
    is_wide = not sys.stdout.isatty()  # a file's lines do not end at a window's edge
    console = Console(width=120 if is_wide else None, markup=False, highlight=False, emoji=False)
    if not rows:
        console.print(f"{printable(title)}: none")
        return
    table = Table()
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(printable, row))
    marked = any(is_marked(cell) for row in rows for cell in row)
    console.print(printable(title), table, *([MARK_NOTE] if marked else []), sep="\n")


def resampled(lesions: Iterable[str], groups: Iterable[str] | None) -> str:
    """Say what intervals resample, by the lesion and the group of each image, as `groups.group_ids` names groups."""
    own, kept = {*lesions}, {*lesions} if groups is None else {*groups}
    if not kept <= own | {f"lesion {name}" for name in own}:
        return "patients"
    return "lesions" if len(kept) == len(own) else "groups of lesions"


def show_points(title: str, points: Sequence[tuple[str, float, FlagMetrics | None]]) -> None:
    """Print how operating points do: target, wanted sensitivity and metrics.

    Neighbours that flag equally share a row; those without a threshold are left out.
    """
    cells = []
    measured = [(target, wanted, found) for target, wanted, found in points if found is not None]
    for (target, _), same in groupby(measured, lambda point: (point[0], point[2].counts)):
        wanted, metrics = zip(*((wanted, found.metrics) for _, wanted, found in same), strict=True)
        span = " to ".join(f"{end:.0%}" for end in dict.fromkeys((wanted[0], wanted[-1])))
        cells.append((f"{target}, {span} wanted", *(with_interval(metrics[0][rate]) for rate in _RATES)))
    show_table(title, ("flagged for", *_RATES.values()), cells)


def with_interval(number: Estimate, *, sign: bool = False) -> str:
    """A number with its interval, and the p value where it has one; `sign` shows a plus too, as for a difference."""
    text = number.text("+.3f" if sign else ".3f")
    return text if number.value is None or number.p is None else f"{text} {number.p_text()}"
