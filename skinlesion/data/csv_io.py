"""Tables as people hand them in: CSV files, their faults named by line, and columns by the names that people use.

A label file is one-hot, as in the ISIC challenges, or has a `dx` column.
"""

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from skinlesion.data.metadata import AGES, UNKNOWN, normalize_words, parse_ages
from skinlesion.errors import first_five
from skinlesion.taxonomy import CODES, DIAGNOSES

ID_COLUMNS = ("image_id", "image", "isic_id", "image_name")
"""Names of the column of image ids."""

DIAGNOSIS_COLUMNS = ("dx", "diagnosis")
"""Names of the column of diagnoses."""

DROP, REFUSE = "drop", "error"
"""Meanings of a word other than a diagnosis: its images are left out, or the file is refused."""

SEXES = ("female", "male", UNKNOWN)

SYNONYMS = {
    "lesion_id": ("lesion_id",),
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "localization": ("localization", "anatom_site_general"),
    "dx_type": ("dx_type", "diagnosis_confirm_type"),
    "dataset": ("dataset",),
}
"""Names of each fact's column in HAM10000 and in the tables of the ISIC archive."""

_FACTS_AND_WEIGHTS = {*(name for names in SYNONYMS.values() for name in names), "score_weight", "validation_weight"}

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
        lines = _numbered_lines(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return pd.DataFrame(), [f"cannot be read as text ({error}); save it again as CSV in UTF-8."]
    if not lines:
        return pd.DataFrame(), [f"the file is empty; expected a header with {', '.join(columns) or 'names'}."]
    (_, names), *body = lines
    header = [name.lower() for name in names]
    complete = {number: fields for number, fields in body if len(fields) == len(header)}
    rows = pd.DataFrame(list(complete.values()), columns=header, index=list(complete))
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
    found = values.groupby(groups).unique()
    return [f"{group} ({', '.join(sorted(several))})" for group, several in found.items() if len(several) > 1]


def _numbered_lines(text: str) -> list[tuple[int, list[str]]]:
    """Line numbers, as an editor shows them, and fields of all lines that have any."""
    header = text.lstrip().partition("\n")[0]
    # newline="" leaves line ends to the reader, which knows those inside quotes; strict refuses an open quote
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if "\t" in header else ",", strict=True)
    lines = [(reader.line_num, [field.strip() for field in fields]) for fields in reader]
    return [(number, fields) for number, fields in lines if any(fields)]


def _header_problems(header: list[str], columns: Sequence[str]) -> Iterator[str]:
    if missing := [column for column in columns if column not in header]:
        yield (
            f"no column {', '.join(missing)}; expected {', '.join(columns)}, separated by commas or tabs, "
            f"but the header is {', '.join(map(repr, header))}."
        )
    if repeated := [column for column in columns if header.count(column) > 1]:
        yield f"column {', '.join(repeated)} is there more than once; keep one."


class LabelCount(TypedDict):
    """Images that carry one word of a label file."""

    images: int
    counts_as: str  # a diagnosis code, or "dropped"


def read_labels(path: Path, *, classes: Mapping[str, str], key: str) -> tuple[pd.DataFrame, list[str]]:
    """Read the diagnosis of each image.

    Args:
        path: CSV with a column of image ids (`ID_COLUMNS`), and either a column `dx` or a column of 0 and 1 for each
            diagnosis.
        classes: Meaning of each word, or of the name of each such column: one of `CODES`, `DROP` or `REFUSE`. Codes and
            names of the seven diagnoses mean themselves unless they are listed.
        key: The configuration key of `classes`, for messages.

    Returns:
        The rows as text, indexed by line, with image_id, `word` and `diagnosis` ("" where the image is left out)
        beside the columns of the file; and the problems of the file, one text each.
    """
    rows, problems = read_rows(path, columns=())
    if problems:
        return rows, problems
    ids = image_ids(rows)
    if ids is None:
        return rows, [f"no column of image ids ({', '.join(ID_COLUMNS)}), but {', '.join(map(repr, rows))}."]
    meanings = {each.name: each.code for each in DIAGNOSES} | {code: code for code in CODES} | dict(classes)
    column = next((name for name in DIAGNOSIS_COLUMNS if name in rows), None)
    if column is not None:
        words = pd.Series(normalize_words(rows[column]), index=rows.index)
    else:
        words, problems = _one_hot_words(rows, meanings, key=key)
    codes = [meaning if (meaning := meanings.get(word)) in CODES else "" for word in words]
    return (
        rows.assign(image_id=ids, word=words, diagnosis=codes),
        [*problems, *id_problems(ids), *_label_problems(words[words != ""], meanings, key=key)],
    )


def image_ids(rows: pd.DataFrame) -> "pd.Series[str] | None":
    """Return the image ids of some rows without file suffix; None where no column of `ID_COLUMNS` is there."""
    column = next((name for name in ID_COLUMNS if name in rows), None)
    return None if column is None else rows[column].str.replace(r"\.(jpe?g|png)$", "", case=False, regex=True)


def id_problems(ids: "pd.Series[str]") -> Iterator[str]:
    """Yield the lines without an image id, and the ids that stand in more than one row."""
    known = is_known(ids)
    if not known.all():
        yield f"no image_id in line {first_five(ids.index[~known])}; every row needs one."
    yield from repeated_ids(ids[known])


def label_counts(rows: pd.DataFrame) -> dict[str, LabelCount]:
    """Count the images of each word and name the diagnosis that they count as, sorted by word."""
    return {
        str(word): {"images": len(named), "counts_as": str(named["diagnosis"].iloc[0]) or "dropped"}
        for word, named in rows.groupby("word", sort=True)
    }


def joined_facts(rows: pd.DataFrame, labels: Path, metadata: Path | None) -> tuple[pd.DataFrame, list[str]]:
    """Collect the facts of a label file and its metadata file, whose values win; and list their problems."""
    if metadata is None:
        return facts_by_image(rows), named_by_file(labels, fact_problems(rows))
    table, problems = read_rows(metadata, columns=())
    ids = image_ids(table)
    if not problems and ids is None:
        problems = [f"no column of image ids ({', '.join(ID_COLUMNS)})."]
    if problems or ids is None:
        return pd.DataFrame(), named_by_file(metadata, problems)
    known = ids.isin(rows["image_id"])
    problems = [*fact_problems(table[known]), *repeated_ids(ids)]
    if not known.any():
        problems.append("no row for any image of the label file; is it of other images?")
    elif without := int((~rows["image_id"].isin(ids)).sum()):
        log.warning("%s: no row for %d of %d images: their facts are unknown.", metadata.name, without, len(rows))
    facts = facts_by_image(table.assign(image_id=ids)[known]).combine_first(facts_by_image(rows))
    return facts, named_by_file(metadata, problems)


def facts_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Give the facts as text by image id, under HAM10000's names, NaN where empty."""
    found = {fact: next((name for name in names if name in rows), None) for fact, names in SYNONYMS.items()}
    columns = {fact: rows[name].to_numpy() for fact, name in found.items() if name is not None}
    texts = pd.DataFrame(columns, index=rows["image_id"].to_numpy(), dtype=object)
    return texts.where(texts != "")[~texts.index.duplicated()]


def fact_problems(rows: pd.DataFrame) -> Iterator[str]:
    """Yield the sexes and ages that cannot be used, as far as the columns are there."""
    yield from unknown_words(rows, "sex", SEXES)
    for column in (name for name in SYNONYMS["age"] if name in rows):
        if (faulty := parse_ages(rows[column])[1]).any():
            years = f"years from {AGES[0]:g} to {AGES[1]:g}, such as 55 or 55.0, or nothing where unknown"
            yield f"faulty {column}: {by_line(rows.loc[faulty, column])}; expected {years}."


def unknown_words(rows: pd.DataFrame, column: str, expected: Sequence[str]) -> Iterator[str]:
    """Yield the words of a column that are none of the expected ones, if the column is there."""
    if column in rows:
        wrong = rows.loc[[word not in expected for word in normalize_words(rows[column])], column]
        if len(wrong):
            yield f"unknown {column}: {by_line(wrong)}; expected {', '.join(expected)}."


def is_known(values: "pd.Series[str]") -> "pd.Series[bool]":
    """Tell values from "", "NA", "unknown" and their like."""
    return pd.Series([word != UNKNOWN for word in normalize_words(values)], index=values.index, dtype=bool)


def named_by_file(path: Path, problems: Iterable[str]) -> list[str]:
    """Put the file's name before each problem."""
    return [f"{path.name}: {problem}" for problem in problems]


def _one_hot_words(rows: pd.DataFrame, meanings: Mapping[str, str], *, key: str) -> "tuple[pd.Series[str], list[str]]":
    """Name the column that holds the 1 of each row, "" where there is none; and list the problems."""
    columns = [str(name) for name in rows if name in meanings]
    if not columns:
        return pd.Series("", index=rows.index), [
            "no column dx and none that is named after a diagnosis; expected image,MEL,NV,… or image,dx."
        ]
    unknown = [str(name) for name in rows if name not in meanings and name not in {*ID_COLUMNS, *_FACTS_AND_WEIGHTS}]
    problems = [f"unknown column {first_five(unknown)}; {_advice(unknown[0], key)}."] if unknown else []
    values = rows[columns].apply(pd.to_numeric, errors="coerce")
    binary = values.isin((0, 1)).all(axis=1)
    if not binary.all():
        problems.append(f"neither 0 nor 1 in line {first_five(rows.index[~binary])}; expected one 1 a row, the rest 0.")
    single = values.sum(axis=1) == 1
    if (wrong := binary & ~single).any():
        lines = first_five(rows.index[wrong])
        problems.append(f"no diagnosis or more than one in line {lines}; expected one 1 a row, the rest 0.")
    names = np.asarray(columns, dtype=object)[values.fillna(0).to_numpy().argmax(axis=1)]
    return pd.Series(names, index=rows.index).where(binary & single, ""), problems


def _label_problems(words: "pd.Series[str]", meanings: Mapping[str, str], *, key: str) -> Iterator[str]:
    if len(unknown := words[~words.isin(list(meanings))]):
        yield f"unknown diagnosis {by_line(unknown)}; {_advice(unknown.iloc[0], key)}."
    if len(refused := words[words.map(dict(meanings)) == REFUSE]):
        yield (
            f"images of {by_line(refused)}, none of the seven diagnoses; leave them out with "
            f"{key}.{refused.iloc[0]}={DROP}."
        )


def _advice(word: str, key: str) -> str:
    return f"say what it stands for with '+{key}.{word}=VALUE', VALUE one of {', '.join((*CODES, DROP))}"
