"""Comma- or tab-separated text files as people hand them in, their faults named by line."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd


def read_rows(path: Path, *, columns: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read a file with a header, every field as text without outer blanks.

    Args:
        path: The file, in UTF-8 with or without a byte-order mark, with any line ends; fields may be quoted,
            lines without any field are passed over.
        columns: Columns that must be there, in lower case; in the file they may have capitals.

    Returns:
        All columns, named in lower case, indexed by line number; and what is wrong with the file, one text a
        problem. Lines with too many or too few fields are not among the rows but among the problems.
    """
    try:
        lines = _split(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return pd.DataFrame(), [f"cannot be read as text ({error}); save it anew as CSV in UTF-8."]
    if not lines:
        return pd.DataFrame(), [f"the file is empty; expected a header with {', '.join(columns) or 'names'}."]
    (_, names), *body = lines
    header = [name.lower() for name in names]
    sound = {number: fields for number, fields in body if len(fields) == len(header)}
    rows = pd.DataFrame(list(sound.values()), columns=header, index=list(sound))
    problems = list(_problems(header, columns, [number for number, _ in body if number not in sound]))
    if not body:
        problems.append("no rows below the header.")
    return rows.loc[:, ~rows.columns.duplicated()], problems


def some(items: Iterable[object]) -> str:
    """Name the first five of `items`, and how many there are if more."""
    names = [str(item) for item in items]
    return ", ".join(names[:5]) + (f" (first 5 of {len(names):,})" if len(names) > 5 else "")


def by_line(values: "pd.Series[str]") -> str:
    """Name values indexed by line number, e.g. "'scc' (line 3, 8 and 17 more), 'x' (line 5)"."""
    lines: dict[str, list[str]] = {}
    for number, value in values.items():
        lines.setdefault(value, []).append(str(number))
    return some(f"{value!r} (line {_first_two(numbers)})" for value, numbers in lines.items())


def _first_two(numbers: Sequence[str]) -> str:
    more = f" and {len(numbers) - 2:,} more" if len(numbers) > 2 else ""
    return ", ".join(numbers[:2]) + more


def _split(text: str) -> list[tuple[int, list[str]]]:
    header = text.lstrip().partition("\n")[0]
    separator = "\t" if "\t" in header else ","
    # newline="" leaves line ends to the reader, which knows those inside quotes; strict refuses an open quote
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
    return [(number, fields) for number, fields in lines if any(fields)]


def _problems(header: list[str], columns: Sequence[str], ragged: list[int]) -> Iterator[str]:
    missing = [column for column in columns if column not in header]
    if missing:
        yield (
            f"no column {', '.join(missing)}; expected {', '.join(columns)}, separated by commas or tabs, "
            f"but the header is {', '.join(map(repr, header))}."
        )
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        yield f"column {', '.join(twice)} is there more than once; keep one."
    if ragged:
        yield f"not {len(header)} fields, as the header has, in line {some(ragged)}; mend the separators."
