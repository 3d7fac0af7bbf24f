"""Label files: the word of each image, one-hot as in the ISIC challenges or in a column, and the diagnosis it means."""

import logging
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from skinlesion.config.schema import require_classes
from skinlesion.data.columns import USUAL_NAMES, Layout, image_ids, read_identified, rows_by_image
from skinlesion.data.csv_io import by_line, column_names, id_problems, read_rows
from skinlesion.data.image_files import class_folders, folders_inside, stems
from skinlesion.data.metadata import UNKNOWN, normalize_words
from skinlesion.errors import first_five
from skinlesion.taxonomy import BENIGN, DROP, HAM10000, MALIGNANT, REFUSE, Taxonomy, plain

DIAGNOSIS_COLUMNS = (
    *("dx", "diagnosis", "diagnostic", "disease", "label", "class", "category", "diagnosis_name", "dx_name"),
    *("cell_type", "lesion_type", "final_diagnosis", "ground_truth", "histology", "pathology"),
)
"""Names of the column of diagnoses, the first that is there and whose words are all known."""

HIERARCHIES = tuple(tuple(f"{name}_{level}" for level in range(1, 6)) for name in ("diagnosis", "iddx"))
"""Columns of the ISIC archive and of ISIC 2024, from benign or malignant down to the finest kind."""

NONE = "none"
"""Word of the rows of a one-hot file that have no 1, where `classes` explains it: ISIC 2017 leaves nevi so."""

FOLDERS = "folders"
"""Name of a label file that is none: images lie in folders that are named after the diagnoses."""

_BINARY = dict.fromkeys(("0", "0.0", "false", "no", "non-neoplastic", BENIGN), BENIGN) | dict.fromkeys(
    ("1", "1.0", "true", "yes", MALIGNANT), MALIGNANT
)
_BINARY_COLUMNS = ("benign_malignant", "malignant", "is_malignant", "target")
_USUAL = Layout()

log = logging.getLogger(__name__)


class LabelCount(TypedDict):
    """Images that carry one word of a label file."""

    images: int
    counts_as: str  # a diagnosis code, or "dropped"


@dataclass(frozen=True)
class Meanings:
    """What the words of a table stand for: as the configuration says, else as the taxonomy does.

    Raises:
        ConfigError: A word of the configuration stands for no diagnosis.
    """

    taxonomy: Taxonomy
    classes: Mapping[str, str]  # code, `DROP` or `REFUSE` of each word
    key: str  # configuration key of `classes`, for messages

    def __post_init__(self) -> None:
        if not self.taxonomy.infer:
            require_classes(self.key, self.classes, self.taxonomy.codes)

    @cached_property
    def _given(self) -> dict[str, str]:
        return {plain(word): meaning for word, meaning in self.classes.items()}

    def __call__(self, word: str) -> str | None:
        """Give the code of a word, `DROP` or `REFUSE`; None: it is not known."""
        return self._given.get(plain(word)) or self.taxonomy.meaning(word)

    def codes(self, words: Iterable[str]) -> list[str]:
        """Give the code of each word, "" where its images are left out or it has none."""
        listed = list(words)
        meaning = {word: self(word) for word in {*listed}}
        found = {word: "" if code in (None, DROP, REFUSE) else str(code) for word, code in meaning.items()}
        return [found[word] for word in listed]

    def problems(self, words: "pd.Series[str]", column: str = "diagnosis") -> Iterator[str]:
        """Yield what is wrong with the words of a table, indexed by line."""
        meaning = {word: self(word) for word in {*words}}
        if len(unknown := words[[meaning[word] is None for word in words]]):
            first = next((word for word in unknown if word.lower() not in _BINARY), None)
            if first is None:
                drop = typed_override(self.key, str(unknown.iloc[0]).lower(), DROP)
                way = f"expected a column that names one, or leave them out with {drop}"
                yield f"{by_line(unknown)} is no diagnosis of {self.taxonomy.name}; {way}."
            else:
                yield f"unknown {column} {by_line(unknown)}; {self.advice(first)}."
        if len(refused := words[[meaning[word] == REFUSE for word in words]]):
            way = typed_override(self.key, str(refused.iloc[0]).lower(), DROP)
            yield f"images of {by_line(refused)}, no diagnosis of {self.taxonomy.name}; leave them out with {way}."

    def advice(self, word: str) -> str:
        """Say how to explain a word, and which codes are spelled like it."""
        alike = self.taxonomy.nearest(word)
        way = f"say what it stands for with {typed_override(self.key, word.lower(), 'VALUE')}"
        choices = f"VALUE one of {', '.join((*self.taxonomy.codes, DROP))}"
        return f"{way}, {choices}{f' (nearest: {first_five(alike)})' if alike else ''}"

    def report(self, column: str, words: Iterable[str]) -> None:
        """Print what the words mean that are no codes, with their numbers of images."""
        counts = {word: n for word, n in Counter(words).items() if self(word) not in (word, None)}
        if counts:
            said = [f"{word} as {self(word)} ({n:,})" for word, n in sorted(counts.items())]
            log.info("Diagnoses from %s: %s.", column, ", ".join(said))


def read_labels(
    path: Path,
    meanings: Meanings,
    *,
    layout: Layout = _USUAL,
    metadata: Path | None = None,
    binary: bool = False,
    table: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Read the diagnosis of each image.

    Args:
        path: CSV with a column of image ids, and a column of diagnoses (`DIAGNOSIS_COLUMNS`), the columns of one of
            `HIERARCHIES`, or a column of 0 and 1 for each diagnosis.
        meanings: Of each word, or of the name of each such column.
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
    key = meanings.key.removesuffix("classes")
    if ids is None and metadata is not None:
        joined = rows_by_image(rows, read_identified(metadata, layout)[0], layout, by=("lesion_id",))
        rows, ids = (rows, None) if joined is None else (joined, joined["image_id"])
    if ids is None:
        expected = f"no column of image ids ({first_five(USUAL_NAMES['image_id'])}, or {key}columns.image=NAME)"
        by_lesion = layout.find(rows, "lesion_id") is not None
        way = f"; {key}metadata=FILE may name the images of each lesion" if by_lesion and metadata is None else ""
        return rows, [f"{expected}; expected a header such as image,dx, got {first_five(map(repr, rows))}{way}."]
    column, words = _diagnosis_words(rows, meanings, layout)
    answers = _binary_words(rows, column, meanings, layout) if binary else None
    if answers is not None:
        return rows.assign(image_id=ids, word=answers, diagnosis=answers), list(id_problems(ids))
    if words is None:
        column, (words, problems) = "columns of 0 and 1", _one_hot_words(_free_columns(rows, layout), meanings)
    meanings.report(layout.given.get("diagnosis", column or "") if column == "dx" else column or "", words[words != ""])
    return (
        rows.assign(image_id=ids, word=words, diagnosis=meanings.codes(words)),
        [*problems, *id_problems(ids), *meanings.problems(words[words != ""])],
    )


def diagnosis_codes(rows: pd.DataFrame, taxonomy: Taxonomy) -> list[str] | None:
    """Give the code of each row of a table that was read before, its word where it has none; None: no column has it."""
    column, words = _diagnosis_words(rows, Meanings(taxonomy, {}, ""), _USUAL)
    return None if column is None or words is None else [taxonomy.meaning(word) or word for word in words]


def folder_labels(images: Sequence[Path]) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Label images by the names of their folders: the table for `read_labels`, and the file of each image."""
    found = class_folders(images)
    table = pd.DataFrame([row[:2] for row in found], columns=["image_id", "dx"], dtype=object)
    return table, {image_id: [str(path)] for image_id, _, path in found}


def _free_columns(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Give the columns that hold neither ids nor facts."""
    return rows[[str(name) for name in rows if layout.is_diagnosis(str(name))]]


def _diagnosis_words(
    rows: pd.DataFrame, meanings: Meanings, layout: Layout
) -> "tuple[str | None, pd.Series[str] | None]":
    """Give the name and the words of the column of diagnoses; None where each diagnosis has a column of 0 and 1.

    Where there are several such columns, the first counts whose words are all diagnoses.
    """
    found = {name: pd.Series(normalize_words(rows[name]), rows.index) for name in DIAGNOSIS_COLUMNS if name in rows}
    for names in HIERARCHIES:
        if levels := [name for name in names if name in rows]:
            found[" to ".join(dict.fromkeys((levels[0], levels[-1])))] = _hierarchy_words(rows[levels], meanings)
    if len(_one_hot_columns(_free_columns(rows, layout), meanings)) > 1:
        found = {name: words for name, words in found.items() if name in DIAGNOSIS_COLUMNS[:2]}
    binary = {name: rows[name].str.lower() for name in _BINARY_COLUMNS if name in rows}
    for name, words in {**found, **binary}.items():
        if not any(meanings(word) in (None, REFUSE) for word in {*words}):
            return name, words
    return next(iter(found.items()), (None, None))


def _hierarchy_words(levels: pd.DataFrame, meanings: Meanings) -> "pd.Series[str]":
    """Give the finest word of each row that is known; where none is, its third, as fine as diagnoses are."""
    named = levels.iloc[:, :3] if meanings.taxonomy.infer else levels

    @cache
    def nearest(*path: str) -> str:
        words = [word for word in reversed(path) if word != UNKNOWN]
        third = path[2] if len(path) > 2 and path[2] != UNKNOWN else next(iter(words), UNKNOWN)
        return next((word for word in words if meanings(word) is not None), third)

    columns = [normalize_words(named[name]) for name in named]
    return pd.Series([nearest(*path) for path in zip(*columns, strict=True)], levels.index, dtype=object)


def _binary_words(
    rows: pd.DataFrame, column: str | None, meanings: Meanings, layout: Layout
) -> "pd.Series[str] | None":
    """Say benign or malignant of each row, or CODE or `not CODE`, if that is all the file says; "" is left out."""
    names = _BINARY_COLUMNS if column is None else (column,)
    found = {
        name: answers for name in names if name in rows and (answers := _answers(rows[name], meanings)) is not None
    }
    if column is None and not found and NONE not in meanings.classes:
        alone = _one_hot_columns(_free_columns(rows, layout), meanings)
        answers = _answers(rows[alone[0]], meanings) if len(alone) == 1 else None
        if answers is not None and BENIGN in {*answers}:
            code = str(meanings(alone[0]))
            found[alone[0]] = answers.replace({MALIGNANT: code, BENIGN: f"not {code}"})
    for name, answers in found.items():
        counts = Counter(f"{word} as {read or DROP}" for word, read in zip(rows[name], answers, strict=True))
        log.info("Diagnoses from %s: %s.", name, ", ".join(f"{said} ({n:,})" for said, n in sorted(counts.items())))
        return answers
    return None


def _answers(column: "pd.Series[str]", meanings: Meanings) -> "pd.Series[str] | None":
    """Say benign or malignant of each row, "" where it is left out; None where words are others, or all diagnoses."""
    words = pd.Series(normalize_words(column), column.index)
    answers = words.map(_BINARY).mask(pd.Series([meanings(word) == DROP for word in words], words.index), "")
    return None if answers.isna().any() or all(meanings(word) for word in {*words}) else answers


def label_counts(rows: pd.DataFrame) -> dict[str, LabelCount]:
    """Count the images of each word and name the diagnosis that they count as, sorted by word."""
    return {
        str(word): {"images": len(named), "counts_as": str(named["diagnosis"].iloc[0]) or "dropped"}
        for word, named in rows.groupby("word", sort=True)
    }


def unread_columns(path: Path, meanings: Meanings, layout: Layout) -> list[str]:
    """Name the columns of a table that hold neither ids, facts nor diagnoses, as far as their names say."""
    names = column_names(path)
    used = {*layout.fact_columns(names).values(), layout.find(names, "image_id"), *layout.given.values()}
    used |= {*DIAGNOSIS_COLUMNS, *_BINARY_COLUMNS, *(name for levels in HIERARCHIES for name in levels)}
    infer = meanings.taxonomy.infer
    free = [name for name in names if name and name not in used and layout.is_diagnosis(name)]
    return [name for name in free if infer or meanings(name) is None]


def _one_hot_columns(rows: pd.DataFrame, meanings: Meanings) -> list[str]:
    """Name the columns that are named after a diagnosis; where any word is one, those of 0 and 1."""
    named = [str(name) for name in rows if meanings(str(name)) is not None]
    if not meanings.taxonomy.infer:
        return named
    values = _binary_values(rows[named].mask(rows[named].isin(("True", "TRUE", "true")), "yes"))  # a fact, not a class
    binary = [name for name in named if values[name].isin((0, 1)).all()]
    return binary if binary and (values[binary].sum(axis=1) == 1).all() else []


def _binary_values(columns: pd.DataFrame) -> pd.DataFrame:
    """Read 0 and 1, true and false as numbers; an empty cell is 0 if no 0 is written, anything else is NaN."""
    spelt = columns.apply(lambda column: pd.Series(normalize_words(column), column.index))
    values: pd.DataFrame = spelt.replace({"true": "1", "false": "0"}).apply(pd.to_numeric, errors="coerce")
    return values if (values == 0).any(axis=None) else values.mask(spelt == UNKNOWN, 0.0)


def _one_hot_words(rows: pd.DataFrame, meanings: Meanings) -> "tuple[pd.Series[str], list[str]]":
    """Name the column that holds the 1 of each row, "" where there is none; and list the problems."""
    columns = _one_hot_columns(rows, meanings)
    if not columns:
        return pd.Series("", index=rows.index), [_without_diagnoses(rows, meanings)]
    others = [str(name) for name in rows if name not in columns]
    values = pd.concat([_binary_values(rows[columns]), rows[others].apply(pd.to_numeric, errors="coerce")], axis=1)
    is_binary = values.isin((0, 1))
    unknown = [name for name in others if is_binary[name].all()]
    problems = [f"unknown column {first_five(unknown)}; {meanings.advice(unknown[0])}."] if unknown else []
    values, binary = values[columns], is_binary[columns].all(axis=1)
    if not binary.all():
        problems.append(f"neither 0 nor 1 in line {first_five(rows.index[~binary])}; expected one 1 a row, the rest 0.")
    ones = values.sum(axis=1)
    fits = (ones == 1) | ((ones == 0) if NONE in meanings.classes else False)
    if (wrong := binary & ~fits).any():
        lines = first_five(rows.index[wrong])
        way = f"; where none stands for a diagnosis, {meanings.advice(NONE)}" if (ones[wrong] == 0).all() else ""
        problems.append(f"no diagnosis or more than one in line {lines}; expected one 1 a row, the rest 0{way}.")
    names = np.asarray(columns, dtype=object)[values.fillna(0).to_numpy().argmax(axis=1)]
    words = pd.Series(names, index=rows.index).where(ones == 1, NONE)
    return words.where(binary & fits, ""), problems


def _without_diagnoses(rows: pd.DataFrame, meanings: Meanings) -> str:
    """Say what a table without diagnoses was expected to have, and which of its columns may hold them."""
    known = [name for name in rows if all(meanings(word) for word in {*rows[name]})]
    named = f" ({first_five(map(repr, known))} holds known words)" if known and not meanings.taxonomy.infer else ""
    header = ",".join(("image", *map(str.upper, meanings.taxonomy.codes[:2] or HAM10000.codes[:2]))) + ","
    key = meanings.key.removesuffix("classes")
    expected = f"expected {header}… or image,dx, or {key}columns.diagnosis=NAME{named}"
    binary = next((name for name in _BINARY_COLUMNS if name in rows), None)
    if binary and len(odd := rows.loc[[word not in _BINARY for word in normalize_words(rows[binary])], binary]):
        way = typed_override(meanings.key, normalize_words(odd)[0], DROP)
        return f"neither benign nor malignant in {binary}: {by_line(odd)}; leave such images out with {way}."
    alone = f" (benign or malignant alone is no diagnosis of {meanings.taxonomy.name})" if binary else ""
    return f"no column dx and none that is named after a diagnosis{alone}; {expected}."


def headerless_labels(path: Path, folders: Sequence[Path]) -> pd.DataFrame | None:
    """Read a table of two columns without a header, as ISIC 2016's: image and word; None where it is another table.

    Its first line must be the name of an image in `folders`.
    """
    rows, problems = read_rows(path, columns=(), header=("image", "dx"))
    ids = image_ids(rows, _USUAL) if not problems else None
    every = [inner for folder in folders for inner in (folder, *folders_inside(folder))]
    if ids is None or ids.iloc[0] not in {stem for folder in every for stem in stems(folder)}:
        return None
    log.info("%s has no header: image and diagnosis of each line are read.", path.name)
    return rows.assign(image_id=ids)


def typed_override(key: str, word: str, value: str) -> str:
    """Spell the override that maps a word, as a shell and Hydra's grammar take it when it is typed."""
    if re.fullmatch(r"[a-z_]\w*", word, re.ASCII):
        return f"'+{key}.{word}={value}'"
    return shlex.quote(f"+{key}={{{plain(word) or word}: {value}}}")
