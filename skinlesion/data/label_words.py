"""A label file, one-hot as in the ISIC challenges or with a `dx` column, and what its words mean among the seven."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion.data.csv_io import by_line, read_rows, some
from skinlesion.data.metadata import words
from skinlesion.taxonomy import CODES, DIAGNOSES

IDS = ("image_id", "image", "isic_id", "image_name")
"""What the column of image ids is called, here and there."""

NAMES = ("dx", "diagnosis")
"""What the column of a diagnosis' name is called."""

DROP, REFUSE = "drop", "error"
"""What a word may stand for instead of a diagnosis: its images are left out, or the file is refused."""

_BESIDE = {
    *IDS,
    *("lesion_id", "age", "age_approx", "sex", "localization", "anatom_site_general"),
    *("dx_type", "diagnosis_confirm_type", "dataset", "score_weight", "validation_weight"),
}  # columns that may stand beside one-hot ones


def read_labels(path: Path, *, classes: Mapping[str, str], key: str) -> tuple[pd.DataFrame, list[str]]:
    """Read which diagnosis each image has.

    Args:
        path: CSV with a column of image ids (`IDS`), and either a column `dx` or a column of 0 and 1 a diagnosis.
        classes: What a word or the name of such a column stands for: one of `CODES`, `DROP` or `REFUSE`. Codes and
            names of the seven stand for themselves unless they are listed.
        key: The configuration key of `classes`, for messages.

    Returns:
        The rows as text, indexed by line, with image_id, `word` and `diagnosis` ("" where the image is left out)
        beside the columns of the file; and what is wrong, one text a problem.
    """
    rows, problems = read_rows(path, columns=())
    if problems:
        return rows, problems
    found = [name for name in IDS if name in rows]
    if not found:
        return rows, [f"no column of image ids ({', '.join(IDS)}), but {', '.join(map(repr, rows))}."]
    meanings = {each.name: each.code for each in DIAGNOSES} | {code: code for code in CODES} | dict(classes)
    ids = rows[found[0]].str.replace(r"\.(jpe?g|png)$", "", case=False, regex=True)
    named = [name for name in NAMES if name in rows]
    if named:
        word, problems = pd.Series(words(rows[named[0]]), index=rows.index), []
    else:
        word, problems = _one_hot(rows, meanings, key=key)
    rows = rows.assign(image_id=ids, word=word, diagnosis=[_meant(meanings.get(each)) for each in word])
    return rows, [*problems, *_row_problems(rows, meanings, key=key)]


def told(rows: pd.DataFrame) -> dict[str, dict[str, object]]:
    """How many images each word names and as which diagnosis they count, sorted by word."""
    return {
        str(word): {"images": len(each), "counts_as": each["diagnosis"].iloc[0] or "dropped"}
        for word, each in rows.groupby("word", sort=True)
    }


def _meant(meaning: str | None) -> str:
    return meaning if meaning in CODES else ""


def _one_hot(rows: pd.DataFrame, meanings: Mapping[str, str], *, key: str) -> "tuple[pd.Series[str], list[str]]":
    """The name of the column that holds the 1 of each row, "" where there is none; and what is wrong."""
    columns = [str(name) for name in rows if name in meanings]
    blank = pd.Series("", index=rows.index)
    if not columns:
        return blank, ["no column dx and none that is named after a diagnosis; expected image,MEL,NV,… or image,dx."]
    strange = [str(name) for name in rows if name not in meanings and name not in _BESIDE]
    problems = [f"unknown column {some(strange)}; {_way_out(strange[0], key)}."] if strange else []
    values = rows[columns].apply(pd.to_numeric, errors="coerce")
    whole = values.isin((0, 1)).all(axis=1)
    if not whole.all():
        problems.append(f"neither 0 nor 1 in line {some(rows.index[~whole])}; expected one 1 a row, the rest 0.")
    single = values.sum(axis=1) == 1
    if not (single | ~whole).all():
        wrong = rows.index[whole & ~single]
        problems.append(f"no diagnosis or more than one in line {some(wrong)}; expected one 1 a row, the rest 0.")
    names = np.asarray(columns, dtype=object)[values.fillna(0).to_numpy().argmax(axis=1)]
    return pd.Series(names, index=rows.index).where(whole & single, ""), problems


def _row_problems(rows: pd.DataFrame, meanings: Mapping[str, str], *, key: str) -> Iterator[str]:
    if (blank := rows["image_id"] == "").any():
        yield f"no image id in line {some(rows.index[blank])}; every row needs one."
    ids = rows.loc[~blank, "image_id"]
    if (twice := ids.duplicated(keep=False)).any():
        yield f"image in more than one row: {by_line(ids[twice])}; keep one row an image."
    given = rows["word"] != ""
    unknown = given & ~rows["word"].isin(list(meanings))
    if unknown.any():
        words_found = rows.loc[unknown, "word"]
        yield f"unknown diagnosis {by_line(words_found)}; {_way_out(words_found.iloc[0], key)}."
    refused = given & (rows["word"].map(dict(meanings)) == REFUSE)
    if refused.any():
        words_found = rows.loc[refused, "word"]
        yield (
            f"images of {by_line(words_found)}, none of the seven diagnoses; leave them out with "
            f"{key}.{words_found.iloc[0]}={DROP}."
        )


def _way_out(word: str, key: str) -> str:
    choices: Sequence[str] = (*CODES, DROP)
    return f"say what it stands for with '+{key}.{word}=VALUE', VALUE one of {', '.join(choices)}"
