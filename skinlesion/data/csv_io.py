"""Tables as people hand them in: CSV files, their faults named by line, and columns by the names that people use."""

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from skinlesion.data.image_formats import SUFFIXES
from skinlesion.data.metadata import AGES, UNKNOWN, normalize_words, parse_ages
from skinlesion.errors import first_five

ID_COLUMNS = ("image_id", "image", "isic_id", "image_name", "img_id", "md5hash", "ddi_file", "derm")
"""Names of the column of image ids, the first that is there."""

SEXES = ("female", "male", UNKNOWN)

SYNONYMS = {
    "lesion_id": ("lesion_id",),
    "patient_id": ("patient_id",),
    "age": ("age", "age_approx", "age_at_diagnosis", "age_years", "age (years)"),
    "sex": ("sex", "gender"),
    "localization": (
        "localization",
        "anatom_site_general",
        "anatom_site_general_challenge",
        "localisation",
        "location",
        "anatom_site",
        "body_site",
        "site",
        "region",
    ),
    "dx_type": ("dx_type", "diagnosis_confirm_type"),
    "dataset": ("dataset",),
}
"""Names of each fact's column in HAM10000, in the tables of the ISIC archive and in others; the first counts."""

NO_DIAGNOSES = {
    *ID_COLUMNS,
    *(name for names in SYNONYMS.values() for name in names),
    "score_weight",
    "validation_weight",
}
log = logging.getLogger(__name__)


def read_rows(path: Path, *, columns: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Read a file with a header, every field as text without surrounding blanks.

    Args:
        path: The file, in UTF-8 with or without a byte-order mark, with any line ends; fields may be quoted, lines
            without any field are skipped.
        columns: Required columns, in lower case; the file may spell them with capitals.

    Returns:
        All columns, named in lower case, indexed by line number; and the problems of the file, one text each. Lines
        with too many or too few fields are not among the rows but among the problems.
    """
    try:
        lines = list(_numbered_lines(path.read_bytes().decode("utf-8-sig")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return pd.DataFrame(), [f"cannot be read as text ({error}); save it again as CSV in UTF-8."]
    if not lines:
        return pd.DataFrame(), [f"the file is empty; expected a header with {', '.join(columns) or 'names'}."]
    (_, names), *body = lines
    header = [name.lower() for name in names]
    complete = {number: fields for number, fields in body if len(fields) == len(header)}
    rows = pd.DataFrame(list(complete.values()), columns=header, index=list(complete), dtype=object)
    problems = list(_header_problems(header, columns))
    if ragged := [number for number, _ in body if number not in complete]:
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
    """Name the groups that hold more than one value, e.g. "HAM_1 (mel, nv)"."""
    pairs = pd.DataFrame({"group": groups, "value": values}).dropna().drop_duplicates()
    several = pairs[pairs["group"].duplicated(keep=False)].groupby("group")["value"]
    return [f"{group} ({', '.join(sorted(found))})" for group, found in several]


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file that `read_rows` has read, in lower case."""
    _, names = next(_numbered_lines(path.read_bytes().decode("utf-8-sig")), (0, []))
    return [name.lower() for name in names]


def _numbered_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, as an editor shows them, and fields of all lines that have any."""
    header = text.lstrip().partition("\n")[0]
    # newline="" leaves line ends to the reader, which knows those inside quotes; strict refuses an open quote
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",", strict=True)
    for fields in reader:
        if any(stripped := [field.strip() for field in fields]):
            yield reader.line_num, stripped


def _header_problems(header: list[str], columns: Sequence[str]) -> Iterator[str]:
    if missing := [column for column in columns if column not in header]:
        yield (
            f"no column {', '.join(missing)}; expected {', '.join(columns)}, separated by commas or tabs, "
            f"but the header is {', '.join(map(repr, header))}."
        )
    if repeated := [column for column in columns if header.count(column) > 1]:
        yield f"column {', '.join(repeated)} is there more than once; keep one."


def image_ids(rows: pd.DataFrame) -> "pd.Series[str] | None":
    """Return the image ids of some rows without folder and suffix; None where no column of `ID_COLUMNS` is there."""
    column = next((name for name in ID_COLUMNS if name in rows), None)
    affixes = rf"^.*[/\\]|(?:{'|'.join(map(re.escape, SUFFIXES))})$"
    return None if column is None else rows[column].str.replace(affixes, "", case=False, regex=True)


def id_problems(ids: "pd.Series[str]") -> Iterator[str]:
    """Yield the lines without an image id, and the ids that stand in more than one row."""
    known = is_known(ids)
    if not known.all():
        yield f"no image_id in line {first_five(ids.index[~known])}; every row needs one."
    yield from repeated_ids(ids[known])


def joined_facts(
    rows: pd.DataFrame, labels: Path, metadata: Path | None
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Collect the facts of a label file and its metadata file, whose values win.

    Returns:
        The facts by image id; the column of each fact that was found; and problems of the files.
    """
    columns = fact_columns(rows)
    if metadata is None:
        return facts_by_image(rows), columns, named_by_file(labels, fact_problems(rows))
    table, problems = read_rows(metadata, columns=())
    ids = image_ids(table)
    if not problems and ids is None:
        problems = [f"no column of image ids ({', '.join(ID_COLUMNS)})."]
    if problems or ids is None:
        return pd.DataFrame(), columns, named_by_file(metadata, problems)
    known = ids.isin(rows["image_id"])
    problems = [*fact_problems(table[known]), *repeated_ids(ids)]
    if not known.any():
        problems.append("no row for any image of the label file; is it of other images?")
    elif without := int((~rows["image_id"].isin(ids)).sum()):
        log.warning("%s: no row for %d of %d images: their facts are unknown.", metadata.name, without, len(rows))
    facts = facts_by_image(table.assign(image_id=ids)[known]).combine_first(facts_by_image(rows))
    return facts, columns | fact_columns(table), named_by_file(metadata, problems)


def fact_columns(rows: pd.DataFrame) -> dict[str, str]:
    """Name the column of each fact that is there."""
    found = {fact: next((name for name in names if name in rows), None) for fact, names in SYNONYMS.items()}
    return {fact: name for fact, name in found.items() if name is not None}


def facts_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the facts as text by image id, under HAM10000's names, NaN where empty."""
    columns = {fact: rows[name].to_numpy() for fact, name in fact_columns(rows).items()}
    texts = pd.DataFrame(columns, index=rows["image_id"].to_numpy(), dtype=object)
    return texts.where(texts != "")[~texts.index.duplicated()]


def fact_problems(rows: pd.DataFrame) -> Iterator[str]:
    """Yield the sexes and ages that cannot be used, as far as the columns are there."""
    columns = fact_columns(rows)
    if "sex" in columns:
        yield from unknown_words(rows, columns["sex"], SEXES)
    age = columns.get("age")
    if age is not None and (faulty := parse_ages(rows[age])[1]).any():
        years = f"years from {AGES[0]:g} to {AGES[1]:g}, such as 55 or 55.0, or nothing where unknown"
        yield f"faulty {age}: {by_line(rows.loc[faulty, age])}; expected {years}."


def unknown_words(rows: pd.DataFrame, column: str, expected: Sequence[str]) -> Iterator[str]:
    """Yield the words of a column that are none of the expected ones."""
    wrong = rows.loc[[word not in expected for word in normalize_words(rows[column])], column]
    if len(wrong):
        yield f"unknown {column}: {by_line(wrong)}; expected {', '.join(expected)}."


def is_known(values: "pd.Series[str]") -> "pd.Series[bool]":
    """Tell values from "", "NA", "unknown" and their like."""
    return pd.Series([word != UNKNOWN for word in normalize_words(values)], index=values.index, dtype=bool)


def named_by_file(path: Path, problems: Iterable[str]) -> list[str]:
    """Put the file's name before each problem."""
    return [f"{path.name}: {problem}" for problem in problems]
