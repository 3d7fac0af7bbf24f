"""Numbers and tables of a report as text, with intervals for the page and as plain numbers for CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skinlesion.metrics.estimate import MARK_NOTE, NOT_COMPUTABLE, Estimate, is_marked

_INTERVAL = re.compile(r" ?\[[^\[\]]*\]")


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return NOT_COMPUTABLE if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share as a percentage, with one decimal unless it is whole."""
    return NOT_COMPUTABLE if value is None else f"{100 * value:.1f}".removesuffix(".0") + "\u00a0%"


def ranged(number: Estimate | None) -> str:
    """A number with its interval, with three decimals."""
    return NOT_COMPUTABLE if number is None else number.text()


def ranged_percent(number: Estimate | None) -> str:
    """A share with its interval, as percentages with one decimal."""
    return NOT_COMPUTABLE if number is None else number.text(".1f", scale=100, unit="\u00a0%")


def change(number: Estimate) -> str:
    """A difference with sign, interval and p value."""
    p = "" if number.p is None else f", {number.p_text()}"
    return number.text("+.3f") + ("" if number.low is None else p)


def unbroken(text: str) -> str:
    """The same text without line breaks in numbers with intervals."""
    return _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), text)


def listed(items: Sequence[str]) -> str:
    """Items in a sentence: a, b and c."""
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


Cell = str | float | Estimate | None
Rows = list[list[Cell]]


@dataclass(frozen=True)
class Table:
    """A named table."""

    name: str  # name of the CSV file
    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def shown(self) -> list[list[str]]:
        """Formatted cells."""
        return [[_format(cell) for cell in row] for row in self.rows]

    def footnotes(self) -> list[str]:
        """The notes, and one on marked intervals where there are any."""
        marked = any(is_marked(cell) for row in self.shown() for cell in row)
        return [*self.notes, *([MARK_NOTE] if marked else [])]

    def csv(self) -> str:
        """Plain numbers; a column with intervals becomes three: value, low and high."""
        wide = [any(isinstance(row[k], Estimate) for row in self.rows) for k in range(len(self.headings))]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        ends = ("", " low", " high")
        columns = list(zip(self.headings, wide, strict=True))
        writer.writerow([heading + end for heading, is_wide in columns for end in (ends if is_wide else ends[:1])])
        for row in self.rows:
            writer.writerow([value for cell, is_wide in zip(row, wide, strict=True) for value in _plain(cell, is_wide)])
        return buffer.getvalue()


def _format(cell: Cell) -> str:
    if cell is None:
        return NOT_COMPUTABLE
    if isinstance(cell, Estimate):
        return ranged(cell)
    return decimal(cell) if isinstance(cell, float) else str(cell)


def _plain(cell: Cell, is_wide: bool) -> list[Any]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    return [cell, None, None] if is_wide else [cell]
