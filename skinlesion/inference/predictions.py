"""The predictions table: one row an image, one probability a diagnosis.

`Predictions` is the seam between whatever makes probabilities and whatever judges them. Needs numpy alone until a table
is read, written or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.files import replacing
from skinlesion.taxonomy import HAM10000, Taxonomy

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

_TOLERANCE = 1e-4  # of a sum of probabilities: far above float32 rounding, far below a wrong column
_DIGITS = "%.9g"  # nine significant digits tell all float32 numbers apart, eight do not
_NAMED = 5  # offending rows that a message names
_PER_IMAGE = (
    "image_id",
    "lesion_id",
    "actual",
    "probabilities",
    "uncalibrated",
    "prediction_set",
    "ood_score",
    "ood",
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities of N images, with what is known of the images.

    Attributes:
        image_id: (N,) ids, file names or positions.
        probabilities: (N, K) in the order of the taxonomy, calibrated where the model is.
        lesion_id: (N,) ids, "" where the lesion is unknown.
        actual: (N,) codes, "" where the diagnosis is unknown.
        taxonomy: The K diagnoses.
        uncalibrated: (N, K), the members' mean before calibration; None: nothing was calibrated.
        prediction_set: (N, K), which diagnoses are in the set; None: the model has no prediction sets.
        coverage: Share of images whose set is to hold the actual diagnosis, 0 to 1; None: there are no sets.
        ood_score: (N,), the higher the less like the training images; None: the model does not judge it.
        ood: (N,), whether an image is flagged as out-of-distribution; None likewise.
        members: (M, N, K), of each member before calibration; None: not kept.
    """

    image_id: npt.NDArray[np.object_]
    probabilities: Floats
    lesion_id: npt.NDArray[np.object_]
    actual: npt.NDArray[np.object_]
    taxonomy: Taxonomy = HAM10000
    uncalibrated: Floats | None = None
    prediction_set: Flags | None = None
    coverage: float | None = None
    ood_score: Floats | None = None
    ood: Flags | None = None
    members: Floats | None = None

    @classmethod
    def build(
        cls,
        image_id: Sequence[str],
        lesion_id: Sequence[str] | None = None,
        *,
        probabilities: npt.ArrayLike,
        actual: Sequence[str] | None = None,
        taxonomy: Taxonomy = HAM10000,
        source: str = "the predictions",
    ) -> Self:
        """Check what a model says of N images, and sort it by image_id.

        Args:
            image_id: N different ids.
            lesion_id: N ids, "" where the lesion is unknown; None: all are.
            probabilities: (N, K) in 0..1, each row with sum 1. Take the softmax in float32: a half-precision sum is
                too coarse.
            actual: N codes, "" where the diagnosis is unknown; None: all are.
            taxonomy: The K diagnoses.
            source: Names the table in messages.

        Raises:
            DataError: A row cannot be right (no number, outside 0..1, wrong sum, unknown code, id twice).
            ValueError: The shapes do not fit.
        """
        values, ids = _float32(probabilities), _text(image_id)
        lesions, codes = (_text(each if each is not None else [""] * len(ids)) for each in (lesion_id, actual))
        if not len(ids) == len(lesions) == len(codes) or values.shape != (len(ids), len(taxonomy)):
            raise ValueError(
                f"{len(ids)} image ids, {len(lesions)} lesion ids, {len(codes)} diagnoses and probabilities of shape "
                f"{values.shape} do not fit: expected N, N, N and (N, {len(taxonomy)})"
            )
        made = cls(ids, values, lesions, codes, taxonomy)
        made._check(source)
        return made.select(np.argsort(ids, kind="stable"))

    @classmethod
    def read(cls, path: Path, *, taxonomy: Taxonomy = HAM10000) -> Self:
        """Read and check a table that `write` wrote.

        Raises:
            DataError: The file is missing, is no CSV, or holds other columns or a row that cannot be right.
        """
        import pandas as pd  # here, since the service predicts without it

        try:
            text = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: no predictions table ({error}). Give a CSV file that `skinlesion evaluate` wrote."
            ) from error
        columns = _columns(taxonomy)
        missing = [each for each in columns if each not in text]
        unknown = [each for each in text if each not in columns]
        if missing or unknown:
            raise DataError(f"{path}: missing columns {missing}, unknown columns {unknown}; expected {list(columns)}.")
        numbers = np.stack([pd.to_numeric(text[code], errors="coerce") for code in taxonomy.codes], axis=1)
        made = cls.build(
            text["image_id"].tolist(),
            text["lesion_id"].tolist(),
            probabilities=numbers,
            actual=text["actual"].tolist(),
            taxonomy=taxonomy,
            source=str(path),
        )
        made._check_predicted(
            text.set_index("image_id")["predicted"].loc[list(made.image_id)].tolist(), source=str(path)
        )
        return made

    @classmethod
    def soft_vote(cls, tables: Sequence[Predictions]) -> Predictions:
        """Average the probabilities of several models for the same images.

        Args:
            tables: One a member.

        Returns:
            The predictions of the ensemble, sorted by image_id. The mean is taken in float64 and rounded to float32,
            so that an ensemble of copies is the copy.

        Raises:
            DataError: There is no table, or two tables differ in their images, lesions or actual diagnoses.
        """
        if not tables:
            raise DataError("No predictions to average: an ensemble needs at least one table.")
        ordered = [table.select(np.argsort(table.image_id, kind="stable")) for table in tables]
        for number, table in enumerate(ordered[1:], start=2):
            refuse_other_images(ordered[0], table, number=number)
        return ordered[0].with_probabilities(
            np.mean([each.probabilities for each in ordered], axis=0, dtype=np.float64)
        )

    @classmethod
    def concatenate(cls, tables: Sequence[Predictions]) -> Predictions:
        """The predictions of one model for several batches of images, one after the other."""
        first = tables[0]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(table, name) for table in tables])
            for name in _PER_IMAGE
            if getattr(first, name) is not None
        }
        members = (
            None if first.members is None else np.concatenate([t.members for t in tables if t.members is not None], 1)
        )
        return replace(first, **joined, members=members)

    def write(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all; `read` gives back the same probabilities."""
        with replacing(path) as beside:
            self.to_frame().to_csv(beside, index=False, float_format=_DIGITS, lineterminator="\n")

    def to_frame(self) -> pd.DataFrame:
        """A pandas table: image_id, lesion_id, a column a diagnosis, actual, predicted."""
        import pandas as pd

        values = {code: self.probabilities[:, k] for k, code in enumerate(self.taxonomy.codes)}
        ids = {"image_id": self.image_id, "lesion_id": self.lesion_id}
        return pd.DataFrame({**ids, **values, "actual": self.actual, "predicted": self.predicted})

    def __len__(self) -> int:
        return len(self.image_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {len(self)} images, {self.taxonomy.name}\n{self.to_frame()}"

    @property
    def predicted(self) -> npt.NDArray[np.object_]:
        """(N,) codes of the likeliest diagnoses, of equals the first in class order."""
        return _text(self.taxonomy.codes)[self.predicted_targets]

    @property
    def predicted_targets(self) -> npt.NDArray[np.int64]:
        """(N,) class indices of the likeliest diagnoses."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """(N,) class indices of the actual diagnoses.

        Raises:
            DataError: The actual diagnosis of an image is unknown.
        """
        indices = self.taxonomy.indices(list(self.actual))
        if (indices < 0).any():
            raise DataError(f"No actual diagnosis is known in {self._rows(indices < 0)}. Leave these images out.")
        return indices

    @property
    def group(self) -> npt.NDArray[np.object_]:
        """(N,) what is resampled as one: the lesion; an image of unknown lesion is a lesion of its own."""
        return np.where(self.lesion_id != "", self.lesion_id, "image " + self.image_id).astype(object)

    def select(self, rows: npt.NDArray[Any]) -> Self:
        """Some rows, by position or by a mask (N,)."""
        chosen = {name: getattr(self, name)[rows] for name in _PER_IMAGE if getattr(self, name) is not None}
        members = None if self.members is None else self.members[:, rows]
        return replace(self, **chosen, members=members)

    def with_probabilities(self, probabilities: npt.ArrayLike) -> Self:
        """The same images with other probabilities (N, K), checked."""
        ids, lesions, actual = list(self.image_id), list(self.lesion_id), list(self.actual)
        return self.build(ids, lesions, probabilities=probabilities, actual=actual, taxonomy=self.taxonomy)

    def by_group(self) -> Self:
        """Let the images of a lesion vote: one row a lesion, named by its first image, with the mean probabilities.

        Raises:
            DataError: Images of one lesion have different actual diagnoses.
        """
        groups, first, place = np.unique(self.group, return_index=True, return_inverse=True)
        mixed = self.actual != self.actual[first][place]
        if mixed.any():
            raise DataError(f"Images of one lesion differ in their actual diagnosis: {self._rows(mixed)}.")
        total = np.zeros((len(groups), len(self.taxonomy)))
        np.add.at(total, place, self.probabilities.astype(np.float64))
        counts = np.bincount(place, minlength=len(groups))[:, None]
        return self.select(first).with_probabilities(total / counts)

    def _check(self, source: str) -> None:
        """Raise one DataError with all that is wrong."""
        if not len(self):
            raise DataError(f"{source}: no rows; expected at least one image.")
        values, codes = self.probabilities, self.taxonomy.codes
        in_range = (values >= 0) & (values <= 1)
        total = np.where(in_range, values, np.nan).sum(axis=1, dtype=np.float64)  # out of range is named once
        faults = {
            "image_id is empty": self.image_id == "",
            "image_id appears more than once": _repeated(self.image_id),
            "a probability is no number from 0 to 1": ~in_range.all(axis=1),
            "the probabilities do not sum to 1": np.abs(total - 1) > _TOLERANCE,
            f"the actual diagnosis is neither empty nor one of {', '.join(codes)}": (
                (self.taxonomy.indices(list(self.actual)) < 0) & (self.actual != "")
            ),
        }
        found = [f"{source}: {text}: {self._rows(bad)}" for text, bad in faults.items() if bad.any()]
        if found:
            raise DataError("\n".join(found))

    def _check_predicted(self, predicted: Sequence[str], *, source: str) -> None:
        """Refuse a file whose column `predicted` was changed."""
        given = self.taxonomy.indices(predicted)
        likely = self.probabilities[np.arange(len(self)), given] >= self.probabilities.max(axis=1) - _TOLERANCE
        if (given < 0).any():
            codes = ", ".join(self.taxonomy.codes)
            raise DataError(f"{source}: the predicted diagnosis is none of {codes}: {self._rows(given < 0)}")
        if not likely.all():
            raise DataError(f"{source}: the predicted diagnosis is not the likeliest: {self._rows(~likely)}")

    def _rows(self, bad: npt.NDArray[np.bool_]) -> str:
        """Name the first bad rows, counted from 1 below the header, and say how many there are."""
        places = np.flatnonzero(bad)
        names = ", ".join(f"row {place + 1} ({self.image_id[place]})" for place in places[:_NAMED])
        return names if len(places) <= _NAMED else f"{names} and {len(places) - _NAMED} more"


def refuse_other_images(first: Predictions, other: Predictions, *, number: int = 2) -> None:
    """Raise a DataError unless two sorted tables hold the same images, lesions and diagnoses."""
    only = sorted({*first.image_id} ^ {*other.image_id})
    if only or len(first) != len(other):
        raise DataError(
            f"Tables 1 and {number} hold {len(first)} and {len(other)} images, {len(only)} in one table only "
            f"(first: {', '.join(only[:_NAMED])}). Give tables of the same split."
        )
    for name in ("lesion_id", "actual"):
        differ = getattr(first, name) != getattr(other, name)
        if differ.any():
            raise DataError(f"Tables 1 and {number} differ in {name}: {first._rows(differ)}.")


def _columns(taxonomy: Taxonomy) -> tuple[str, ...]:
    return ("image_id", "lesion_id", *taxonomy.codes, "actual", "predicted")


def _text(values: Sequence[str]) -> npt.NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _float32(values: Any) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # too large becomes infinite, which the check of the range names
        return np.asarray(values).astype(np.float32)


def _repeated(values: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    _, place, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    return np.asarray(counts[place] > 1)


# The table as a frame: each function goes when its last user takes Predictions.
COLUMNS: tuple[str, ...] = ("image_id", "lesion_id", *HAM10000.codes, "actual", "predicted")


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
        probabilities: (N, 7) in 0..1 in the order of `HAM10000.codes`, each row with sum 1. Take the softmax in
            float32: a half-precision sum is too coarse.
        actual: N codes, "" where the diagnosis is unknown.

    Returns:
        The table, sorted by image_id. `predicted` is the likeliest diagnosis, of equals the first in class
        order.

    Raises:
        DataError: If a row cannot be right (no number, outside 0..1, wrong sum, unknown code, id twice).
        ValueError: If the shapes do not fit.
    """
    import pandas as pd

    values = _float32(probabilities)
    if not len(image_ids) == len(lesion_ids) == len(actual) or values.shape != (len(image_ids), len(HAM10000.codes)):
        raise ValueError(
            f"{len(image_ids)} image ids, {len(lesion_ids)} lesion ids, {len(actual)} diagnoses and "
            f"probabilities of shape {values.shape} do not fit: expected N, N, N and (N, {len(HAM10000.codes)})"
        )
    columns = {code: values[:, k] for k, code in enumerate(HAM10000.codes)}
    likeliest = np.array(HAM10000.codes)[values.argmax(axis=1)].tolist()
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
    import pandas as pd

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
    numbers = {code: _float32(pd.to_numeric(text[code], errors="coerce")) for code in HAM10000.codes}
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
        _refuse_other_tables(first, table, number=number)
    mean = np.mean([probabilities(table) for table in ordered], axis=0, dtype=np.float64)
    return build_table(
        first["image_id"].tolist(),
        first["lesion_id"].tolist(),
        probabilities=mean,
        actual=first["actual"].tolist(),
    )


def probabilities(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Return the (N, 7) probabilities in class order, an array of their own."""
    return table[list(HAM10000.codes)].to_numpy(dtype=np.float32, copy=True)


def targets(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the (N,) class indices of the actual diagnoses.

    Raises:
        DataError: If the actual diagnosis of an image is unknown.
    """
    indices = _class_indices(table["actual"])
    if (indices < 0).any():
        raise DataError(f"No actual diagnosis is known in {_table_rows(table, indices < 0)}. Leave these images out.")
    return indices


def predicted_targets(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the (N,) class indices of the predicted diagnoses."""
    return _class_indices(table["predicted"])


def _class_indices(codes: pd.Series[str]) -> npt.NDArray[np.int64]:
    """Return (N,) class indices, -1 where a code is none of `HAM10000.codes`."""
    import pandas as pd

    return pd.Index(HAM10000.codes).get_indexer(pd.Index(codes)).astype(np.int64)


def _checked(table: pd.DataFrame, *, source: str) -> pd.DataFrame:
    """Return the table sorted by image_id; raise one DataError with all that is wrong in it."""
    if table.empty:
        raise DataError(f"{source}: no rows; expected at least one image.")
    found = [f"{text}: {_table_rows(table, bad)}" for text, bad in _faults(table).items() if bad.any()]
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
        f"the actual diagnosis is neither empty nor one of {', '.join(HAM10000.codes)}": (actual < 0) & ~blank,
        f"the predicted diagnosis is none of {', '.join(HAM10000.codes)}": predicted < 0,
        "the predicted diagnosis is not the likeliest": (predicted >= 0) & unlikely,
    }


def _table_rows(table: pd.DataFrame, bad: npt.NDArray[np.bool_]) -> str:
    """Name the first bad rows, counted from 1 below the header, and say how many there are."""
    places = np.flatnonzero(bad)
    names = ", ".join(f"row {place + 1} ({table['image_id'].iloc[place]})" for place in places[:_NAMED])
    return names if len(places) <= _NAMED else f"{names} and {len(places) - _NAMED} more"


def _refuse_other_tables(first: pd.DataFrame, other: pd.DataFrame, *, number: int) -> None:
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
            raise DataError(f"Tables 1 and {number} differ in {name}: {_table_rows(first, differ)}.")
