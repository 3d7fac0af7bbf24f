"""Every metric by sex, age band, localization, image source and kind of confirmation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig, Estimates, estimates_to_dict
from skinlesion.metrics.summary import metrics_with_ci

FACTS = ("sex", "age", "localization", "dataset", "dx_type")
"""Columns of the facts by which images are grouped, in the order in which they are reported; `age` as bands."""

BANDS = (0, 30, 45, 60, 75)  # years from which each age band starts
FEW_LESIONS = 30
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Subgroup:
    """The metrics of a group of images; the note says where it has too few lesions to say much."""

    images: int
    lesions: int
    metrics: Estimates
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = {"images": self.images, "lesions": self.lesions, "numbers": estimates_to_dict(self.metrics)}
        return found | ({"note": self.note} if self.note else {})


Subgroups = dict[str, dict[str, Subgroup]]
"""By fact, then group."""


def groups_of(predictions: Predictions, facts: pd.DataFrame, *, bands: Sequence[float] = BANDS) -> dict[str, list[str]]:
    """Find for each fact the group that each image is in.

    Args:
        predictions: Of N images.
        facts: image_id and any of `FACTS`, such as the checked frame of the data set: age in years. Rows of other
            images are passed over; so are facts that no image of the predictions has.
        bands: Years from which each age band starts, ascending.

    Returns:
        By fact, in the order of `FACTS`: N labels in the order of the predictions, "unknown" where empty or missing.

    Raises:
        DataError: The facts lack images of the predictions, or name one twice.
    """
    if "image_id" not in facts:
        raise DataError(f"the facts have columns {list(facts)}; expected image_id among them")
    known = facts.drop_duplicates("image_id")
    missing = sorted(set(predictions.image_id) - set(known["image_id"]))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(predictions)} images are not among the facts ({', '.join(missing[:5])}); give the "
            "metadata of the same images"
        )
    if len(known) != len(facts.drop_duplicates()):
        raise DataError("the facts have several rows for one image; keep one row an image")
    rows = known.set_index("image_id").loc[predictions.image_id.tolist()]
    labels = {fact: _labels(rows[fact], fact, bands) for fact in FACTS if fact in rows}
    return {fact: each for fact, each in labels.items() if set(each) != {UNKNOWN}}


def subgroups(
    predictions: Predictions, groups: Mapping[str, Sequence[str]], config: BootstrapConfig, *, bins: int
) -> Subgroups:
    """Estimate every reported metric of each group with its interval.

    Args:
        predictions: With known actual diagnoses.
        groups: As from `groups_of`.
        config: Settings of the intervals.
        bins: Number of bins of the calibration errors.
    """

    def measured(rows: Predictions) -> Subgroup:
        metrics = metrics_with_ci(rows, config, bins=bins)
        return Subgroup(len(rows), rows.lesions, metrics, few_lesions(rows.lesions))

    return {
        fact: {
            name: measured(predictions.select(np.asarray(labels, dtype=object) == name))
            for name in sorted(set(labels), key=lambda name: (name == UNKNOWN, name))
        }
        for fact, labels in groups.items()
    }


def subgroup_rows(found: Subgroups) -> pd.DataFrame:
    """Subgroups as a table: a row for each number of each group."""
    return pd.DataFrame(
        [
            {
                "fact": fact,
                "group": name,
                "images": each.images,
                "lesions": each.lesions,
                "number": number,
                "value": measured.value,
                "low": measured.low,
                "high": measured.high,
                "note": "; ".join(note for note in (each.note, measured.note) if note),
            }
            for fact, groups in found.items()
            for name, each in groups.items()
            for number, measured in each.metrics.items()
        ],
        columns=["fact", "group", "images", "lesions", "number", "value", "low", "high", "note"],
    )


def few_lesions(lesions: int) -> str:
    """A note, where there are too few lesions to say much; else ""."""
    return f"only {lesions} lesions: says little" if lesions < FEW_LESIONS else ""


def _labels(values: "pd.Series[Any]", fact: str, bands: Sequence[float]) -> list[str]:
    if fact != "age":
        return [str(value) if isinstance(value, str) and value.strip() else UNKNOWN for value in values]
    starts = np.asarray(bands, dtype=np.float64)
    ends = [f"{low:02.0f}-{high - 1:02.0f}" for low, high in pairwise(starts)]
    names = np.array([*ends, f"{starts[-1]:.0f}+", UNKNOWN], dtype=object)
    years = values.to_numpy(dtype=np.float64)
    place = np.where(np.isnan(years), len(names) - 1, np.searchsorted(starts, np.nan_to_num(years), side="right") - 1)
    return [str(name) for name in names[np.maximum(place, 0)]]
