"""Challenge CSVs, `image,MEL,NV,BCC,AKIEC,BKL,DF,VASC`: the entry (probabilities) and the truth (0 or 1)."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.csv_io import by_line, read_rows
from skinlesion.errors import DataError, first_five
from skinlesion.files import write_text
from skinlesion.inference.predictions import build_table, probabilities, targets
from skinlesion.taxonomy import CHALLENGE, CODES

_ORDER = [CODES.index(code) for code in CHALLENGE]
_DIGITS = "%#.9g"  # a point in every number: the scorer refuses a column of whole numbers


def write_submission(table: pd.DataFrame, path: Path) -> None:
    """Write the probabilities of a predictions table as an entry to a challenge, whole or not at all."""
    _write(table, probabilities(table), path)


def write_truth(table: pd.DataFrame, path: Path) -> None:
    """Write the actual diagnoses of a predictions table as a challenge's ground truth, whole or not at all.

    Raises:
        DataError: An actual diagnosis is unknown.
    """
    _write(table, np.eye(len(CODES))[targets(table)], path)


def read_submission(
    path: Path, *, actual: Mapping[str, str], lesions: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> pd.DataFrame:
    """Read an entry to a challenge as a predictions table.

    Args:
        path: The CSV; image ids may end in ".jpg", as the scorer allows.
        actual: Diagnosis code by image id, as of the images to be judged.
        lesions: Lesion id by image id; None or no entry: unknown.
        without: Ids of images that are passed over.

    Raises:
        DataError: The file is no entry, a number is none from 0 to 1, a row's sum is not 1, or its images are not those
            of `actual`.
    """
    names = [code.upper() for code in CHALLENGE]
    rows, problems = read_rows(path, columns=("image", *(name.lower() for name in names)))
    unknown = [str(column) for column in rows if column not in ("image", *CHALLENGE)]
    if unknown:
        problems.append(f"unknown column {', '.join(unknown)}; expected image, {', '.join(names)}.")
    if not problems:
        ids = rows["image"].str.replace(r"\.jpe?g$", "", case=False, regex=True)
        rows, ids = rows[~ids.isin(list(without))], ids[~ids.isin(list(without))]
        problems += _other_images(ids, actual)
    if problems:
        raise DataError.listing(f"{path} is no entry for these images:", problems)
    values = rows[list(CODES)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    try:
        return build_table(
            ids.tolist(),
            [(lesions or {}).get(image_id, "") for image_id in ids],
            probabilities=values,
            actual=[actual[image_id] for image_id in ids],
        )
    except DataError as error:
        raise DataError(str(error).replace("the predictions:", f"{path}:")) from error


def _other_images(ids: "pd.Series[str]", actual: Mapping[str, str]) -> list[str]:
    problems = []
    if (twice := ids.duplicated(keep=False)).any():
        problems.append(f"image in more than one row: {by_line(ids[twice])}; keep one.")
    if not (known := ids.isin(list(actual))).all():
        problems.append(f"images that have no label: {by_line(ids[~known])}; is it an entry for other images?")
    if absent := sorted(set(actual) - set(ids)):
        problems.append(f"no row for {len(absent):,} of {len(actual):,} images: {first_five(absent)}; add them.")
    return problems


def _write(table: pd.DataFrame, values: npt.NDArray[np.generic], path: Path) -> None:
    columns = {code.upper(): values[:, k].astype(np.float64) for code, k in zip(CHALLENGE, _ORDER, strict=True)}
    frame = pd.DataFrame({"image": table["image_id"].to_numpy(), **columns})
    write_text(path, frame.to_csv(index=False, float_format=_DIGITS, lineterminator="\n"))
