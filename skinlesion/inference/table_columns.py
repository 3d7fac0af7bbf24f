"""Predictions tables of other programs: their columns under the names of this package."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.files import restore_formulas
from skinlesion.taxonomy import HAM10000, Taxonomy

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

NAMED = 5  # offending rows that a message names
Ids = Sequence[str] | npt.NDArray[np.object_]
KNOWN = ("image_id", "lesion_id", "actual", "predicted")
ABOUT = ("fold", "source", "confirmation")
"""Columns that a table may have beside those: the fold that an image was judged in, and how it came about."""

_OTHER_NAMES = {
    "image_id": ("image", "isic_id", "img_id"),
    "lesion_id": ("lesion",),
    "actual": ("y_true", "dx", "diagnosis", "label", "target"),
    "predicted": ("y_pred", "prediction", "pred"),
    "source": ("dataset",),
    "confirmation": ("dx_type",),
}
_PREFIXES = ("prob_", "p_", "probability_")
_OPTIONAL = (
    "group_id",
    "predicted",
    "likeliest",
    *ABOUT,
)  # likeliest: where it is not the predicted diagnosis of every image
_UNREAD = (
    "The test part is read only when one asks: type skinlesion ensemble members=SWEEP split=test for an ensemble, and "
    "skinlesion evaluate checkpoint=RUN split=test out=RUN for a run, or train it with judge=[val,test]."
)


def read_columns(path: Path, taxonomy: Taxonomy | None, *, like: Any = None) -> "tuple[pd.DataFrame, Taxonomy]":
    """Read a table with its columns renamed to those of `Predictions.write`, and its diagnoses to codes.

    Columns may come in any order and case, a class column with a prefix such as `prob_MEL`; diagnoses may be codes in
    any case, or positions 0..K-1 in the order of the table's own class columns.

    Args:
        path: A CSV file, packed by gzip where its name ends in .gz.
        taxonomy: The K diagnoses; None: those that the table has columns of probabilities for.
        like: `Predictions` of the same images, whose lesions and diagnoses stand where the table has no such column.

    Returns:
        (N, C) strings: image_id, lesion_id, the K codes, actual, and what else there is of `_OPTIONAL`; and
        the taxonomy.

    Raises:
        DataError: The file is missing or no CSV, or a column is missing, unknown or there twice.
    """
    import pandas as pd

    try:
        table = restore_formulas(pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8"))
    except (OSError, ValueError, EOFError) as error:
        hint = (
            _UNREAD
            if "predictions_test" in path.name and not path.exists()
            else "Give a file that `skinlesion evaluate` wrote."
        )
        raise DataError(f"{path}: no predictions table ({error}). {hint}") from error
    taxonomy = taxonomy or _taxonomy_of(table)
    names = {name: _standard(str(name), taxonomy) for name in table}
    image = next((name for name, known in names.items() if known == "image_id"), None)
    for name in ("lesion_id", "actual"):
        if like is not None and image is not None and name not in names.values():
            log.info("%s: no column %s: taken from the first table", path, name)
            known = dict(zip(like.image_id, getattr(like, name), strict=True))
            table[name] = table[image].map(known).fillna("")
            names[name] = name
    expected = [*KNOWN[:2], *taxonomy.codes, *KNOWN[2:]]
    missing = [name for name in expected if name not in names.values() and name not in _OPTIONAL]
    unknown = [str(name) for name, known in names.items() if known is None]
    if missing or unknown:
        raise DataError(f"{path}: missing columns {missing}, unknown columns {unknown}; expected {expected}.")
    if twice := [name for name in set(names.values()) if list(names.values()).count(name) > 1]:
        raise DataError(f"{path}: several columns stand for {', '.join(map(str, twice))}; keep one of each.")
    order = [name for name in names.values() if name in taxonomy.codes]
    renamed = table.rename(columns=names)
    for name in ("actual", "predicted", "likeliest"):
        if name in renamed:
            renamed[name] = [_code(value, order) for value in renamed[name]]
    return renamed, taxonomy


def _taxonomy_of(table: "pd.DataFrame") -> Taxonomy:
    """The taxonomy whose codes are a table's columns of numbers, where these sum to 1; HAM10000 where they do not."""
    import pandas as pd

    others = [name for name in table if _standard(str(name), HAM10000) in (None, *HAM10000.codes)]
    values = table[others].apply(pd.to_numeric, errors="coerce")
    codes = [_bare(str(name)) for name in others]
    if (
        len(codes) < 2
        or not ((values >= 0) & (values <= 1)).all(axis=None)
        or (abs(values.sum(axis=1) - 1) > 1e-3).any()
    ):
        return HAM10000
    found, alike = Taxonomy.of_codes(codes), {*codes} & {*HAM10000.codes}
    return HAM10000 if found.name == "table" and 4 < len(alike) < len(HAM10000) else found  # a column has another name


def group_index(image_id: Ids, lesion_id: Ids) -> npt.NDArray[np.int64]:
    """Number the lesions of N images from 0 to L-1 by their first image in the order of image_id: (N,).

    An image of unknown lesion, "", is a lesion of its own.
    """
    number: dict[tuple[str, bool], int] = {}
    index = np.empty(len(image_id), dtype=np.int64)
    for place in sorted(range(len(image_id)), key=lambda row: str(image_id[row])):
        key = (lesion_id[place], True) if lesion_id[place] else (image_id[place], False)
        index[place] = number.setdefault(key, len(number))
    return index


def groups_of_frame(frame: "pd.DataFrame") -> npt.NDArray[np.object_] | None:
    """The group of each image of a checked frame; None where these are its lesions."""
    is_lesion = "group_id" not in frame or (frame["group_id"] == frame["lesion_id"]).all()
    return None if is_lesion else object_array(frame["group_id"])


def object_array(values: Iterable[Any]) -> npt.NDArray[np.object_]:
    """An array (N,) of Python objects."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def _standard(name: str, taxonomy: Taxonomy) -> str | None:
    """The name by which this package knows a column; None where it does not."""
    plain, bare = name.strip().lower(), _bare(name)
    if plain in (*KNOWN, *_OPTIONAL):
        return plain
    if bare in taxonomy.codes:
        return bare
    return next((known for known, others in _OTHER_NAMES.items() if plain in others), None)


def _bare(name: str) -> str:
    """The name of a class column in lower case, without a prefix such as `prob_`."""
    plain = name.strip().lower()
    return next((plain.removeprefix(each) for each in _PREFIXES if plain.startswith(each)), plain)


def _code(value: str, order: list[str]) -> str:
    """The code of a diagnosis given as a code or a position; anything else stays, for the check of the rows to name."""
    text = value.strip().lower()
    return order[int(text)] if text.isdecimal() and int(text) < len(order) else text


def refuse_other_images(first: Any, other: Any, *, number: int = 2) -> None:
    """Raise a DataError unless two sorted `Predictions` hold the same images, lesions and diagnoses."""
    only = sorted({*first.image_id} ^ {*other.image_id})
    if only or len(first) != len(other):
        raise DataError(
            f"Tables 1 and {number} hold {len(first)} and {len(other)} images, {len(only)} in one table only "
            f"(first: {', '.join(only[:NAMED])}). Give tables of the same split."
        )
    for name in ("lesion_id", "actual"):
        differ = getattr(first, name) != getattr(other, name)
        if differ.any():
            raise DataError(f"Tables 1 and {number} differ in {name}: {first.rows(differ)}.")
