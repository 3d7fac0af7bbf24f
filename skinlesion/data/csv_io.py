"""Tables as people hand them in: CSV files, and their faults named by line."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from skinlesion.data.metadata import BLANKS, PLACEHOLDERS
from skinlesion.errors import first_five


def read_rows(
    path: Path, *, columns: Sequence[str], header: Sequence[str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read a file with a header, every field as text without surrounding blanks.

    Args:
        path: The file, in UTF-8 with or without a byte-order mark, with any line ends; fields may be quoted, lines
            without any field are skipped, and so are empty fields behind the last column.
        columns: Required columns, in lower case; the file may spell them with capitals.
        header: Names of the columns of a file that has none. None: its first line.

    Returns:
        All columns, named in lower case, indexed by line number; and the problems of the file, one text each. Lines
        with too many or too few fields are not among the rows but among the problems.
    """
    try:
        lines = list(_numbered_lines(_text(path)))
    except FileNotFoundError:
        reason = f"No such file in {path.parent}"
        return pd.DataFrame(), [f"cannot be read as text ({reason}); correct its name, or fetch it (docs/data.md)."]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return pd.DataFrame(), [f"cannot be read as text ({error}); save it again as CSV in UTF-8."]
    if not lines:
        return pd.DataFrame(), [f"the file is empty; expected a header with {', '.join(columns) or 'names'}."]
    (_, names), *body = [(0, [*header]), *lines] if header else lines
    header = [name.lower() for name in names]
    complete: dict[int, list[str]] = {}
    ragged: list[int] = []
    for number, fields in body:
        if len(fields) > len(header) and not any(fields[len(header) :]):
            del fields[len(header) :]
        if len(fields) == len(header):
            complete[number] = fields
        else:
            ragged.append(number)
    rows = pd.DataFrame(list(complete.values()), columns=header, index=list(complete), dtype=object)
    problems = list(_header_problems(header, columns))
    if ragged:
        problems.append(
            f"not {len(header)} fields, as the header has, in line {first_five(ragged)}; correct the separators."
        )
    if not body:
        problems.append("no rows below the header.")
    return rows.loc[:, ~rows.columns.duplicated()], problems


def by_line(values: "pd.Series[str]") -> str:
    """Name values indexed by line number, e.g. "'scc' (line 3, 8 and 17 more), 'x' (line 5)"."""
    lines: dict[str, list[str]] = {}
    for number, value in values.items():
        lines.setdefault(value, []).append(str(number))
    more = {value: f" and {len(found) - 2:,} more" if len(found) > 2 else "" for value, found in lines.items()}
    return first_five(f"{value!r} (line {', '.join(found[:2])}{more[value]})" for value, found in lines.items())


def repeated_ids(ids: "pd.Series[str]") -> list[str]:
    """Describe image ids that stand in more than one row: one text, or none."""
    repeated = ids[ids.duplicated(keep=False)]
    return [f"image_id in more than one row: {by_line(repeated)}; keep one row per image."] if len(repeated) else []


def conflicts(values: "pd.Series[str]", groups: "pd.Series[str]") -> list[str]:
    """Name the groups that hold more than one value, e.g. "HAM_1 (bcc, nv)"."""
    pairs = pd.DataFrame({"group": groups, "value": values}).dropna().drop_duplicates()
    several = pairs[pairs["group"].duplicated(keep=False)].groupby("group")["value"]
    return [f"{group} ({', '.join(sorted(found))})" for group, found in several]


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file, in lower case; none where it cannot be read."""
    try:
        _, names = next(_numbered_lines(_text(path)), (0, []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    return [name.lower() for name in names]


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"PK\x03\x04"):
        raise OSError("an Excel workbook or another archive")
    return content.decode("utf-8-sig")


def _numbered_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, as an editor shows them, and fields of all lines that have any."""
    header = text.lstrip().partition("\n")[0]
    # newline="" leaves line ends to the reader, which knows those inside quotes; strict refuses an open quote
    separator = "\t" if "\t" in header else max(",;|", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for fields in reader:
        if any(stripped := [*map(str.strip, fields)]):
            yield reader.line_num, stripped


def _header_problems(header: list[str], columns: Sequence[str]) -> Iterator[str]:
    if missing := [column for column in columns if column not in header]:
        yield (
            f"no column {', '.join(missing)}; expected {', '.join(columns)}, separated by commas or tabs, "
            f"but the header is {', '.join(map(repr, header))}."
        )
    if repeated := [column for column in columns if header.count(column) > 1]:
        yield f"column {', '.join(repeated)} is there more than once; keep one."


def id_problems(ids: "pd.Series[str]") -> Iterator[str]:
    """Yield the lines without an image id, and the ids that stand in more than one row."""
    known = is_known(ids)
    if not known.all():
        yield f"no image_id in line {first_five(ids.index[~known])}; every row needs one."
    rounded = ids[ids.str.fullmatch(r"[0-9][.,]?[0-9]*e\+[0-9]+", case=False).astype(bool)]
    if len(rounded):
        yield f"image_id shortened by a spreadsheet: {by_line(rounded)}; save the column as text, with all its digits."
    yield from repeated_ids(ids[known].drop(rounded.index))


def whole_ids(ids: "pd.Series[str]") -> "pd.Series[str]":
    """Leave off the `.0` of ids that are all whole numbers, as pandas writes those beside empty cells."""
    known = ids[is_known(ids)]
    is_number = len(known) > 0 and known.str.fullmatch(r"[0-9]+\.0").all()
    return ids.str.removesuffix(".0") if is_number else ids


def is_known(values: "pd.Series[str]") -> "pd.Series[bool]":
    """Tell values from "", "NA", "-", "unknown" and their like."""
    absent = {*BLANKS, *PLACEHOLDERS}  # ids are all different: none is worth keeping in lower case
    known = [str(value).strip().lower() not in absent for value in values.tolist()]
    return pd.Series(known, index=values.index, dtype=bool)


def named_by_file(path: Path, problems: Iterable[str]) -> list[str]:
    """Put the file's name before each problem."""
    return [f"{path.name}: {problem}" for problem in problems]
