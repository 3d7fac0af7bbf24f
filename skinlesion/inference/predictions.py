"""The predictions table: one row an image, one probability a diagnosis.

Models make `Predictions`; metrics, figures and studies take them. Needs numpy alone until one is read or shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.files import escape_formulas, replacing
from skinlesion.inference.table_columns import NAMED, group_index, object_array, read_columns, refuse_other_images
from skinlesion.taxonomy import HAM10000, Taxonomy

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

_TOLERANCE = 1e-4  # of a sum of probabilities: far above float32 rounding, far below a wrong column
_DIGITS = "%.9g"  # nine significant digits tell all float32 numbers apart, eight do not
_SHOWN = 40  # characters of an image's name in a table for people
_KNOWN = ("image_id", "lesion_id", "actual", "group_id")
_PER_IMAGE = (*_KNOWN, "probabilities", "uncalibrated", "scores", "prediction_set", "ood_score", "ood")


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
        scores: (N, K), whose largest is the predicted diagnosis; None: the probabilities.
        prediction_set: (N, K), whether a diagnosis is in the set; None: the model has no prediction sets.
        coverage: Share of images whose set is to hold the actual diagnosis, 0..1; None: there are no sets.
        ood_score: (N,), higher for images less like those of training; None: the model has no such score.
        ood: (N,), whether an image is flagged as out-of-distribution; None likewise.
        members: (M, N, K), of each member before calibration; None: not kept.
        group_id: (N,) ids of what intervals resample, such as patients; None: lesions.
    """

    image_id: npt.NDArray[np.object_]
    probabilities: Floats
    lesion_id: npt.NDArray[np.object_]
    actual: npt.NDArray[np.object_]
    taxonomy: Taxonomy = HAM10000
    uncalibrated: Floats | None = None
    scores: Floats | None = None
    prediction_set: Flags | None = None
    coverage: float | None = None
    ood_score: Floats | None = None
    ood: Flags | None = None
    members: Floats | None = None
    group_id: npt.NDArray[np.object_] | None = None

    @classmethod
    def build(
        cls,
        image_id: Sequence[str],
        lesion_id: Sequence[str] | None = None,
        *,
        probabilities: npt.ArrayLike,
        actual: Sequence[str] | None = None,
        group_id: Sequence[str] | npt.NDArray[np.object_] | None = None,
        predicted: Sequence[str] | None = None,
        decided: Sequence[str] | None = None,
        taxonomy: Taxonomy = HAM10000,
        source: str = "the predictions",
    ) -> Self:
        """Check the predictions for N images, and sort them by image_id.

        Args:
            image_id: N different ids.
            lesion_id: N ids, "" where the lesion is unknown; None: all are.
            probabilities: (N, K) in 0..1 with row sums of 1: of a softmax in float32, half precision is too coarse.
            actual: N codes, "" where the diagnosis is unknown; None: all are.
            group_id: N ids of what intervals resample; None: lesions.
            predicted: N codes that must be the likeliest ones; None: not checked.
            decided: N codes of the predicted diagnoses; None: the likeliest.
            taxonomy: The K diagnoses.
            source: Names the table in messages.

        Raises:
            DataError: A row cannot be right (no number, outside 0..1, wrong sum, unknown code, id twice).
            ValueError: The shapes do not fit.
        """
        ids = object_array(image_id)
        with np.errstate(over="ignore"):  # too large becomes infinite, which the check of the range names
            values = np.asarray(probabilities).astype(np.float32)
        lesions, codes = (object_array(each if each is not None else [""] * len(ids)) for each in (lesion_id, actual))
        if not len(ids) == len(lesions) == len(codes) or values.shape != (len(ids), len(taxonomy)):
            given = f"{len(ids)} image ids, {len(lesions)} lesion ids, {len(codes)} diagnoses"
            shape = f"probabilities of shape {values.shape} do not fit: expected N, N, N and (N, {len(taxonomy)})"
            raise ValueError(f"{given} and {shape}")
        classes = len(taxonomy)
        scores = None if decided is None else np.eye(classes + 1, classes)[taxonomy.indices(decided)]  # unknown: 0
        own = None if group_id is None else object_array(group_id)
        made = cls(ids, values, lesions, codes, taxonomy, scores=scores, group_id=own)
        made._check(source, predicted)
        return made.sorted()

    @classmethod
    def read(cls, path: Path, *, taxonomy: Taxonomy | None = None, like: "Predictions | None" = None) -> Self:
        """Read and check a table of `write` or of another program; `like` gives what it may lack, see `read_columns`.

        Raises:
            DataError: The file is missing, is no CSV, or holds other columns or a row that cannot be right.
        """
        return cls.from_frame(*read_columns(path, taxonomy, like=like), source=str(path))

    @classmethod
    def from_frame(cls, frame: "pd.DataFrame", taxonomy: Taxonomy = HAM10000, *, source: str) -> Self:
        """Check a table of strings with the columns of `write`; `predicted` and `likeliest` may be missing.

        Raises:
            DataError: A row cannot be right.
        """
        import pandas as pd

        predicted = frame["predicted"].tolist() if "predicted" in frame else None
        return cls.build(
            frame["image_id"].tolist(),
            frame["lesion_id"].tolist(),
            probabilities=frame[list(taxonomy.codes)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64),
            actual=frame["actual"].tolist(),
            group_id=frame["group_id"].tolist() if "group_id" in frame else None,
            predicted=frame["likeliest"].tolist() if "likeliest" in frame else predicted,
            decided=predicted if "likeliest" in frame else None,
            taxonomy=taxonomy,
            source=source,
        )

    @classmethod
    def soft_vote(cls, tables: "Sequence[Predictions]") -> "Predictions":
        """Average the probabilities of several models, a table each, for the same images.

        The mean is taken in float64 and rounded to float32, so that an ensemble of copies is the copy.

        Raises:
            DataError: There is no table, or two tables differ in their images, lesions or actual diagnoses.
        """
        ordered = [table.sorted() for table in tables]
        if not ordered:
            raise DataError("No predictions to average: an ensemble needs at least one table.")
        for number, table in enumerate(ordered[1:], start=2):
            refuse_other_images(ordered[0], table, number=number)
        mean = np.mean([each.probabilities for each in ordered], axis=0, dtype=np.float64)
        return ordered[0].with_probabilities(mean)

    @classmethod
    def concatenate(cls, tables: "Sequence[Predictions]") -> "Predictions":
        """The predictions of one model for several batches of images, one after the other."""
        if any(table.scores is not None for table in tables):
            tables = [each if each.scores is not None else replace(each, scores=each.probabilities) for each in tables]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(table, name) for table in tables], axis=int(name == "members"))
            for name in (*_PER_IMAGE, "members")
            if getattr(tables[0], name) is not None
        }
        return replace(tables[0], **joined)

    def write(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all; `read` gives back the same probabilities."""
        with replacing(path) as beside:
            escape_formulas(self._columns()).to_csv(beside, index=False, float_format=_DIGITS, lineterminator="\n")

    def to_frame(self) -> "pd.DataFrame":
        """A pandas table: image_id, lesion_id, one column a diagnosis, actual, predicted, and what the model adds.

        That is `uncalibrated_CODE`, `prediction_set` (codes, the likeliest first), `ood_score` and `ood`.
        """
        frame = self._columns()
        if self.uncalibrated is not None:
            for code, values in zip(self.taxonomy.codes, self.uncalibrated.T, strict=True):
                frame[f"uncalibrated_{code}"] = values
        if self.prediction_set is not None:
            order, codes = np.argsort(-self.probabilities, axis=1, kind="stable"), self.taxonomy.codes
            rows = zip(order, self.prediction_set, strict=True)
            frame["prediction_set"] = [" ".join(codes[k] for k in places if held[k]) for places, held in rows]
        added = {"ood_score": self.ood_score, "ood": self.ood}
        return frame.assign(**{name: values for name, values in added.items() if values is not None})

    def _columns(self) -> "pd.DataFrame":
        """The columns that `write` writes."""
        import pandas as pd

        values = dict(zip(self.taxonomy.codes, self.probabilities.T, strict=True))
        names = ("image_id", "lesion_id") if self.group_id is None else ("image_id", "lesion_id", "group_id")
        ids = {name: getattr(self, name) for name in names}
        likeliest = replace(self, scores=None).predicted
        others = {} if (likeliest == self.predicted).all() else {"likeliest": likeliest}
        return pd.DataFrame({**ids, **values, "actual": self.actual, "predicted": self.predicted, **others})

    def _shown(self) -> "pd.DataFrame":
        """The table for people: long paths by their ends, without empty columns and uncalibrated probabilities."""
        frame = replace(self, uncalibrated=None).to_frame()
        empty = [name for name in ("lesion_id", "actual") if (frame[name] == "").all()]
        names = [name if len(name) <= _SHOWN else f"…{name[1 - _SHOWN :]}" for name in map(str, self.image_id)]
        return frame.assign(image_id=names).drop(columns=empty)

    def __len__(self) -> int:
        return len(self.image_id)

    def __repr__(self) -> str:
        title = f"{type(self).__name__} of {len(self)} image{'s' * (len(self) != 1)}, {self.taxonomy.name}"
        return f"{title}\n{self._shown().to_string(max_rows=20, float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return str(self._shown().to_html(max_rows=20, float_format="{:.3f}".format, index=False))

    @property
    def predicted(self) -> npt.NDArray[np.object_]:
        """(N,) codes of the predicted diagnoses: the likeliest unless `scores` decide, of equals the first in order."""
        return object_array(self.taxonomy.codes)[self.predicted_targets]

    @property
    def predicted_targets(self) -> npt.NDArray[np.int64]:
        """(N,) class indices of the predicted diagnoses."""
        deciding = self.probabilities if self.scores is None else self.scores
        return np.asarray(deciding.argmax(axis=1), dtype=np.int64)

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """(N,) the probability of each predicted diagnosis."""
        return self.probabilities[np.arange(len(self)), self.predicted_targets].astype(np.float64)

    @cached_property
    def targets(self) -> npt.NDArray[np.int64]:
        """(N,) class indices of the actual diagnoses; a DataError names the images whose diagnosis is unknown."""
        indices = self.taxonomy.indices(list(self.actual))
        if (indices < 0).any():
            raise DataError(f"No actual diagnosis is known in {self.rows(indices < 0)}. Leave these images out.")
        return indices

    @cached_property
    def group(self) -> npt.NDArray[np.int64]:
        """(N,) number of what intervals resample, 0 to G-1: the lesion of each image, or its patient or other group."""
        return self.lesion if self.group_id is None else group_index(self.image_id, self.group_id)

    @property
    def groups(self) -> int:
        """How many groups there are, G."""
        return int(self.group.max()) + 1

    @cached_property
    def lesion(self) -> npt.NDArray[np.int64]:
        """(N,) number of the lesion of each image, 0 to L-1, as from `group_index`."""
        return group_index(self.image_id, self.lesion_id)

    @property
    def lesions(self) -> int:
        """How many lesions there are, L."""
        return int(self.lesion.max()) + 1

    def target_score(self, target: str) -> npt.NDArray[np.float64]:
        """(N,) the probability of a target: a code, or a category such as "malignant"."""
        return np.asarray(self.probabilities.astype(np.float64)[:, self.taxonomy.mask(target)].sum(axis=1))

    def sorted(self) -> Self:
        """The same rows in the order of image_id."""
        return self.select(np.argsort(self.image_id, kind="stable"))

    def select(self, rows: npt.NDArray[Any]) -> Self:
        """Some rows, by position or by a mask (N,)."""
        chosen = {name: getattr(self, name)[rows] for name in _PER_IMAGE if getattr(self, name) is not None}
        return replace(self, **chosen, members=None if self.members is None else self.members[:, rows])

    def with_probabilities(self, probabilities: npt.ArrayLike) -> Self:
        """The same images with other probabilities (N, K), checked."""
        known: dict[str, Any] = {name: getattr(self, name) for name in _KNOWN}
        return self.build(**known, probabilities=probabilities, taxonomy=self.taxonomy)

    def against_rest(self, target: str) -> Self:
        """The same images judged for one target, a code or a category, against all else; such actual words stay."""
        two, score = self.taxonomy.against_rest(target), self.target_score(target)
        names = dict(zip(self.taxonomy.codes, np.where(self.taxonomy.mask(target), *two.codes).tolist(), strict=True))
        actual = [code if code in two.codes else names.get(code, code) for code in self.actual]
        pairs, ids = np.stack([score, 1 - score], axis=1).clip(0, 1), self.image_id.tolist()
        known: dict[str, Any] = {"lesion_id": self.lesion_id, "actual": actual, "group_id": self.group_id}
        return self.build(ids, probabilities=pairs, taxonomy=two, **known)

    def by_group(self) -> Self:
        """Let the images of a lesion vote: one row a lesion, named by its first image, with the mean probabilities.

        Raises:
            DataError: Images of one lesion have different actual diagnoses.
        """
        ordered = self.sorted()
        group, first = ordered.lesion, np.unique(ordered.lesion, return_index=True)[1]
        mixed = ordered.actual != ordered.actual[first][group]
        if mixed.any():
            raise DataError(f"Images of one lesion differ in their actual diagnosis: {ordered.rows(mixed)}.")

        def mean(each: Floats) -> Floats:
            return np.stack([np.bincount(group, own) for own in each.T], axis=1) / np.bincount(group)[:, None]

        scores = None if ordered.scores is None else mean(ordered.scores)
        return replace(ordered.select(first).with_probabilities(mean(ordered.probabilities)), scores=scores)

    def _check(self, source: str, predicted: Sequence[str] | None) -> None:
        """Raise one DataError with all that is wrong."""
        if not len(self):
            raise DataError(f"{source}: no rows; expected at least one image.")
        values, codes = self.probabilities, ", ".join(self.taxonomy.codes)
        in_range = (values >= 0) & (values <= 1)
        total = np.where(in_range, values, np.nan).sum(axis=1, dtype=np.float64)  # out of range is named once
        _, place, counts = np.unique(self.image_id.astype(str), return_inverse=True, return_counts=True)
        unknown = self.taxonomy.indices(list(self.actual)) < 0
        given = self.predicted_targets if predicted is None else self.taxonomy.indices(predicted)
        unlikely = values[np.arange(len(self)), given] < values.max(axis=1) - _TOLERANCE
        faults = {
            "image_id is empty": self.image_id == "",
            "image_id appears more than once": counts[place] > 1,
            "a probability is no number from 0 to 1": ~in_range.all(axis=1),
            "the probabilities do not sum to 1": np.abs(total - 1) > _TOLERANCE,
            f"the actual diagnosis is neither empty nor one of {codes}": unknown & (self.actual != ""),
            f"the predicted diagnosis is none of {codes}": (given < 0)
            | (self.scores is not None and ~self.scores.any(axis=1)),
            "the predicted diagnosis is not the likeliest": (given >= 0) & unlikely & in_range.all(axis=1),
        }
        if found := [f"{source}: {text}: {self.rows(bad)}" for text, bad in faults.items() if bad.any()]:
            raise DataError("\n".join(found))

    def rows(self, bad: npt.NDArray[np.bool_]) -> str:
        """Name the first bad rows, counted from 1 below the header, and count the others."""
        places = np.flatnonzero(bad)
        names = ", ".join(f"row {place + 1} ({self.image_id[place]})" for place in places[:NAMED])
        return names if len(places) <= NAMED else f"{names} and {len(places) - NAMED} more"
