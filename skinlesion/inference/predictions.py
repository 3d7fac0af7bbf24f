"""The predictions table: one row an image, one probability a diagnosis, sorted by image_id.

Its columns are `COLUMNS`. The probabilities are float32; `lesion_id` and `actual` are "" where unknown.
Everything that judges a model works on this table, so it can be redone without the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.errors import DataError
from skinlesion.files import replacing
from skinlesion.taxonomy import CODES

COLUMNS: tuple[str, ...] = ("image_id", "lesion_id", *CODES, "actual", "predicted")

_TOLERANCE = 1e-4  # of a sum of probabilities: far above float32 rounding, far below a wrong column
_DIGITS = "%.9g"  # nine significant digits tell all float32 numbers apart, eight do not
_NAMED = 5  # offending rows that a message names


def build_table(
    image_ids: Sequence[str],
    lesion_ids: Sequence[str],
    *,
    probabilities: npt.ArrayLike,
    actual: Sequence[str],
) -> pd.DataFrame:
    """Put what a model says of N images into a predictions table.

    Args:
        image_ids: N different ids.
        lesion_ids: N ids, "" where the lesion is unknown.
        probabilities: (N, 7) in 0..1 in the order of `CODES`, each row with sum 1. Take the softmax in
            float32: a half-precision sum is too coarse.
        actual: N codes, "" where the diagnosis is unknown.

    Returns:
        The table, sorted by image_id. `predicted` is the likeliest diagnosis, of equals the first in class
        order.

    Raises:
        DataError: If a row cannot be right (no number, outside 0..1, wrong sum, unknown code, id twice).
        ValueError: If the shapes do not fit.
    """
    values = _float32(probabilities)
    if not len(image_ids) == len(lesion_ids) == len(actual) or values.shape != (len(image_ids), len(CODES)):
        raise ValueError(
            f"{len(image_ids)} image ids, {len(lesion_ids)} lesion ids, {len(actual)} diagnoses and "
            f"probabilities of shape {values.shape} do not fit: expected N, N, N and (N, {len(CODES)})"
        )
    columns = {code: values[:, k] for k, code in enumerate(CODES)}
    likeliest = np.array(CODES)[values.argmax(axis=1)].tolist()
    ids = {"image_id": list(image_ids), "lesion_id": list(lesion_ids)}
    table = pd.DataFrame({**ids, **columns, "actual": list(actual), "predicted": likeliest})
    return _checked(table, source="the predictions")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a predictions table as CSV, whole or not at all; `read_predictions` gives back the same."""
    with replacing(path) as beside:
        table.to_csv(beside, columns=list(COLUMNS), index=False, float_format=_DIGITS, lineterminator="\n")


def read_predictions(path: Path) -> pd.DataFrame:
    """Read and check a predictions table that `write_table` wrote.

    Raises:
        DataError: If the file is missing, is no CSV, or holds other columns or a row that cannot be right.
    """
    try:
        text = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: no predictions table ({error}). Give a CSV file that `skinlesion evaluate` wrote."
        ) from error
    missing = [name for name in COLUMNS if name not in text]
    unknown = [name for name in text if name not in COLUMNS]
    if missing or unknown:
        raise DataError(f"{path}: missing columns {missing}, unknown columns {unknown}; expected {list(COLUMNS)}.")
    numbers = {code: _float32(pd.to_numeric(text[code], errors="coerce")) for code in CODES}
    return _checked(text.assign(**numbers)[list(COLUMNS)], source=str(path))


def soft_vote(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the probabilities of several models for the same images.

    Args:
        tables: One predictions table a member.

    Returns:
        The predictions table of the ensemble, sorted by image_id. The mean is taken in float64 and rounded to
        float32, so that an ensemble of copies is the copy.

    Raises:
        DataError: If there is no table, or two tables differ in their images, lesions or actual diagnoses.
    """
    if not tables:
        raise DataError("No predictions to average: an ensemble needs at least one table.")
    ordered = [table.sort_values("image_id", ignore_index=True) for table in tables]
    first = ordered[0]
    for number, table in enumerate(ordered[1:], start=2):
        _refuse_other_images(first, table, number=number)
    mean = np.mean([probabilities(table) for table in ordered], axis=0, dtype=np.float64)
    return build_table(
        first["image_id"].tolist(),
        first["lesion_id"].tolist(),
        probabilities=mean,
        actual=first["actual"].tolist(),
    )


def probabilities(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Return the (N, 7) probabilities in class order, an array of their own."""
    return table[list(CODES)].to_numpy(dtype=np.float32, copy=True)


def targets(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the (N,) class indices of the actual diagnoses.

    Raises:
        DataError: If the actual diagnosis of an image is unknown.
    """
    indices = _class_indices(table["actual"])
    if (indices < 0).any():
        raise DataError(f"No actual diagnosis is known in {_rows(table, indices < 0)}. Leave these images out.")
    return indices


def predicted_targets(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the (N,) class indices of the predicted diagnoses."""
    return _class_indices(table["predicted"])


def _class_indices(codes: "pd.Series[str]") -> npt.NDArray[np.int64]:
    """Return (N,) class indices, -1 where a code is none of `CODES`."""
    return pd.Index(CODES).get_indexer(pd.Index(codes)).astype(np.int64)


def _float32(values: Any) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # too large becomes infinite, which the check of the range names
        return np.asarray(values).astype(np.float32)


def _checked(table: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Return the table sorted by image_id; raise one DataError with all that is wrong in it."""
    if table.empty:
        raise DataError(f"{source}: no rows; expected at least one image.")
    found = [f"{text}: {_rows(table, bad)}" for text, bad in _faults(table).items() if bad.any()]
    if found:
        raise DataError("\n".join(f"{source}: {line}" for line in found))
    return table.sort_values("image_id", ignore_index=True)


def _faults(table: pd.DataFrame) -> dict[str, npt.NDArray[np.bool_]]:
    """Return what can be wrong with a row, and for each the (N,) rows in which it is."""
    values = probabilities(table)
    in_range = (values >= 0) & (values <= 1)
    values = np.where(in_range, values, np.nan)  # what is out of range is named once, not again for its sum
    total = values.sum(axis=1, dtype=np.float64)
    actual, predicted = _class_indices(table["actual"]), _class_indices(table["predicted"])
    unlikely = values[np.arange(len(table)), predicted] < values.max(axis=1) - _TOLERANCE
    blank = (table["actual"] == "").to_numpy(dtype=bool)
    return {
        "image_id is empty": (table["image_id"].isna() | (table["image_id"] == "")).to_numpy(dtype=bool),
        "image_id appears more than once": table["image_id"].duplicated(keep=False).to_numpy(dtype=bool),
        "lesion_id is no text": table["lesion_id"].isna().to_numpy(dtype=bool),
        "a probability is no number from 0 to 1": ~in_range.all(axis=1),
        "the probabilities do not sum to 1": np.abs(total - 1) > _TOLERANCE,
        f"the actual diagnosis is neither empty nor one of {', '.join(CODES)}": (actual < 0) & ~blank,
        f"the predicted diagnosis is none of {', '.join(CODES)}": predicted < 0,
        "the predicted diagnosis is not the likeliest": (predicted >= 0) & unlikely,
    }


def _rows(table: pd.DataFrame, bad: npt.NDArray[np.bool_]) -> str:
    """Name the first bad rows, counted from 1 below the header, and say how many there are."""
    places = np.flatnonzero(bad)
    names = ", ".join(f"row {place + 1} ({table['image_id'].iloc[place]})" for place in places[:_NAMED])
    return names if len(places) <= _NAMED else f"{names} and {len(places) - _NAMED} more"


def _refuse_other_images(first: pd.DataFrame, other: pd.DataFrame, *, number: int) -> None:
    """Raise a DataError unless two sorted tables hold the same images, lesions and diagnoses."""
    only = sorted(set(first["image_id"]) ^ set(other["image_id"]))
    if only or len(first) != len(other):
        raise DataError(
            f"Tables 1 and {number} hold {len(first)} and {len(other)} images, {len(only)} in one table only "
            f"(first: {', '.join(only[:_NAMED])}). Average tables of the same split."
        )
    for name in ("lesion_id", "actual"):
        differ = first[name].to_numpy(dtype=object) != other[name].to_numpy(dtype=object)
        if differ.any():
            raise DataError(f"Tables 1 and {number} differ in {name}: {_rows(first, differ)}.")
