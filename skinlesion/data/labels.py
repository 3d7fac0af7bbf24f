"""Label files: the word of each image, one-hot as in the ISIC challenges or in a column, and the diagnosis it means."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from skinlesion.data.columns import USUAL_NAMES, Layout, image_ids
from skinlesion.data.csv_io import by_line, column_names, id_problems, read_rows
from skinlesion.data.image_files import class_folders
from skinlesion.data.metadata import normalize_words
from skinlesion.errors import first_five
from skinlesion.taxonomy import BENIGN, CODES, DIAGNOSES, MALIGNANT

DIAGNOSIS_COLUMNS = ("dx", "diagnosis", "diagnosis_3", "diagnostic", "disease", "label")
"""Names of the column of diagnoses, the first that is there."""

NONE = "none"
"""Word of the rows of a one-hot file that have no 1, where `classes` explains it: ISIC 2017 leaves nevi so."""

DROP, REFUSE = "drop", "error"
"""Meanings of a word other than a diagnosis: its images are left out, or the file is refused."""

FOLDERS = "folders"
"""Name of a label file that is none: images lie in folders that are named after the diagnoses."""

_BINARY = {"0": BENIGN, "0.0": BENIGN, "false": BENIGN, "1": MALIGNANT, "1.0": MALIGNANT, "true": MALIGNANT} | {
    each: each for each in (BENIGN, MALIGNANT)
}
_BINARY_COLUMNS = ("benign_malignant", "malignant", "target")
_USUAL = Layout()


class LabelCount(TypedDict):
    """Images that carry one word of a label file."""

    images: int
    counts_as: str  # a diagnosis code, or "dropped"


def read_labels(
    path: Path,
    *,
    classes: Mapping[str, str],
    key: str,
    layout: Layout = _USUAL,
    metadata: Path | None = None,
    binary: bool = False,
    table: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Read the diagnosis of each image.

    Args:
        path: CSV with a column of image ids, and either a column of diagnoses (`DIAGNOSIS_COLUMNS`) or a
            column of 0 and 1 for each diagnosis.
        classes: Meaning of each word, or of the name of each such column: one of `CODES`, `DROP` or `REFUSE`. Codes and
            names of the seven diagnoses mean themselves unless they are listed; all but letters and digits is a blank.
        key: The configuration key of `classes`, for messages.
        layout: Names of the columns.
        metadata: CSV that names the images of each lesion_id, where `path` has diagnoses of lesions alone.
        binary: Whether a file may say of its images no more than benign or malignant, in a column of these words, of
            0 and 1, or of false and true (`_BINARY_COLUMNS`).
        table: Rows instead of the file's, as text.

    Returns:
        The rows as text, indexed by line, with image_id, `word` and `diagnosis` ("" where the image is left out)
        beside the columns of the file; and the problems of the file, one text each.
    """
    rows, problems = read_rows(path, columns=()) if table is None else (table, [])
    if problems:
        return rows, problems
    rows = layout.with_diagnosis(rows)
    ids = image_ids(rows, layout) if table is None else rows["image_id"]
    if ids is None and metadata is not None:
        rows = _rows_by_image(rows, metadata, layout)
        ids = image_ids(rows, layout)
    if ids is None:
        expected = f"no column of image ids ({', '.join(USUAL_NAMES['image_id'])}, or {_id_key(key)}=NAME)"
        return rows, [f"{expected}; expected a header such as image,dx, got {first_five(map(repr, rows))}."]
    meanings = {each.name: each.code for each in DIAGNOSES} | {code: code for code in CODES} | dict(classes)
    column = diagnosis_column(rows, meanings)
    answers = _binary_column(rows, column) if binary else None
    if answers is not None:
        labels, meanings = rows[answers].str.lower().map(_BINARY), {BENIGN: BENIGN, MALIGNANT: MALIGNANT}
    elif column is not None:
        words = normalize_words(rows[column])
        known = {word: _known_word(word, meanings) for word in {*words}}
        labels = pd.Series([known[word] for word in words], index=rows.index, dtype=object)
    else:
        named = [str(name) for name in rows if layout.is_diagnosis(str(name))]
        labels, problems = _one_hot_words(rows[named], meanings, key=key)
    left_out = (None, DROP, REFUSE)
    codes = {word: "" if (meaning := meanings.get(word)) in left_out else str(meaning) for word in {*labels}}
    return (
        rows.assign(image_id=ids, word=labels, diagnosis=[codes[word] for word in labels]),
        [*problems, *id_problems(ids), *_label_problems(labels[labels != ""], meanings, key=key)],
    )


def folder_labels(images: Sequence[Path]) -> tuple[pd.DataFrame, dict[str, list[Path]]]:
    """Label images by the names of their folders: the table for `read_labels`, and the file of each image."""
    found = class_folders(images)
    table = pd.DataFrame([row[:2] for row in found], columns=["image_id", "dx"], dtype=object)
    return table, {image_id: [path] for image_id, _, path in found}


def diagnosis_column(rows: pd.DataFrame, meanings: Mapping[str, str]) -> str | None:
    """Name the column of diagnoses; None where each diagnosis has a column of 0 and 1."""
    found = [name for name in DIAGNOSIS_COLUMNS if name in rows]
    one_hot = any(_known_word(str(name), meanings) in meanings for name in rows)
    return found[0] if found and (found[0] in DIAGNOSIS_COLUMNS[:2] or not one_hot) else None


def _binary_column(rows: pd.DataFrame, column: str | None) -> str | None:
    """Name the column that says no more than benign or malignant, if that is all the file says."""
    columns = [column] if column is not None else [name for name in _BINARY_COLUMNS if name in rows]
    return next((name for name in columns if rows[name].str.lower().isin(list(_BINARY)).all()), None)


def _known_word(word: str, meanings: Mapping[str, str]) -> str:
    """Spell a word, such as melanocytic-nevus, as the meanings do."""
    return word if word in meanings else {_plain(each): each for each in meanings}.get(_plain(word), word)


def _plain(word: str) -> str:
    return " ".join(re.findall("[a-z0-9]+", word))


def _id_key(key: str) -> str:
    return key.replace(".classes", ".columns.image")


def _rows_by_image(rows: pd.DataFrame, metadata: Path, layout: Layout) -> pd.DataFrame:
    """Give each image of a lesion the lesion's row; the rows as they are where the tables do not say."""
    table, problems = read_rows(metadata, columns=())
    ids = image_ids(table, layout)
    own, theirs = layout.find(rows, "lesion_id"), layout.find(table, "lesion_id")
    if problems or ids is None or own is None or theirs is None:
        return rows
    images = pd.DataFrame({own: table[theirs], "image_id": ids})
    return rows.reset_index(names="line").merge(images, on=own).set_index("line")


def label_counts(rows: pd.DataFrame) -> dict[str, LabelCount]:
    """Count the images of each word and name the diagnosis that they count as, sorted by word."""
    return {
        str(word): {"images": len(named), "counts_as": str(named["diagnosis"].iloc[0]) or "dropped"}
        for word, named in rows.groupby("word", sort=True)
    }


def unread_columns(path: Path, classes: Mapping[str, str], layout: Layout) -> list[str]:
    """Name the columns of a table that hold neither ids, facts nor diagnoses, as far as their names say."""
    names = column_names(path)
    used = {*layout.fact_columns(names).values(), layout.find(names, "image_id"), *layout.given.values()}
    used |= {*DIAGNOSIS_COLUMNS, *_BINARY_COLUMNS, *CODES, *(each.name for each in DIAGNOSES), *classes}
    return [name for name in names if name and name not in used and layout.is_diagnosis(name)]


def _one_hot_words(rows: pd.DataFrame, meanings: Mapping[str, str], *, key: str) -> "tuple[pd.Series[str], list[str]]":
    """Name the column that holds the 1 of each row, "" where there is none; and list the problems."""
    named = {str(name): _known_word(str(name), meanings) for name in rows}
    columns = [name for name, word in named.items() if word in meanings]
    if not columns:
        alone = (
            " (benign or malignant alone is not one of the seven)" if {*rows} & {"target", "benign_malignant"} else ""
        )
        expected = f"no column dx and none that is named after a diagnosis{alone}; expected image,MEL,NV,… or image,dx."
        return pd.Series("", index=rows.index), [expected]
    values = rows[list(named)].apply(pd.to_numeric, errors="coerce")
    is_binary = values.isin((0, 1))
    unknown = [name for name in named if name not in columns and is_binary[name].all()]
    problems = [f"unknown column {first_five(unknown)}; {_advice(unknown[0], key)}."] if unknown else []
    values, binary = values[columns], is_binary[columns].all(axis=1)
    if not binary.all():
        problems.append(f"neither 0 nor 1 in line {first_five(rows.index[~binary])}; expected one 1 a row, the rest 0.")
    ones = values.sum(axis=1)
    fits = (ones == 1) | ((ones == 0) if NONE in meanings else False)
    if (wrong := binary & ~fits).any():
        lines = first_five(rows.index[wrong])
        way = f"; where none stands for a diagnosis, {_advice(NONE, key)}" if (ones[wrong] == 0).all() else ""
        problems.append(f"no diagnosis or more than one in line {lines}; expected one 1 a row, the rest 0{way}.")
    names = np.asarray([named[name] for name in columns], dtype=object)[values.fillna(0).to_numpy().argmax(axis=1)]
    words = pd.Series(names, index=rows.index).where(ones == 1, NONE)
    return words.where(binary & fits, ""), problems


def _label_problems(words: "pd.Series[str]", meanings: Mapping[str, str], *, key: str) -> Iterator[str]:
    if len(unknown := words[~words.isin(list(meanings))]):
        first = next((word for word in unknown if word not in _BINARY), None)
        if first is None:
            yield f"{by_line(unknown)} is not one of the seven diagnoses; expected a column that names one of them."
        else:
            yield f"unknown diagnosis {by_line(unknown)}; {_advice(first, key)}."
    if len(refused := words[words.map(dict(meanings)) == REFUSE]):
        way = typed_override(key, str(refused.iloc[0]), DROP)
        yield f"images of {by_line(refused)}, none of the seven diagnoses; leave them out with {way}."


def _advice(word: str, key: str) -> str:
    return f"say what it stands for with {typed_override(key, word, 'VALUE')}, VALUE one of {', '.join((*CODES, DROP))}"


def typed_override(key: str, word: str, value: str) -> str:
    """Spell the override that maps a word, as a shell and Hydra's grammar take it when it is typed."""
    if re.fullmatch(r"[a-z_]\w*", word, re.ASCII):
        return f"'+{key}.{word}={value}'"
    return shlex.quote(f"+{key}={{{_plain(word) or word}: {value}}}")
