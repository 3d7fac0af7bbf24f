"""Two populations of images side by side, in diagnoses, patients and looks: what differs may explain a loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import ks_2samp

from skinlesion.data.image_statistics import STATISTICS
from skinlesion.taxonomy import CODES

MEASURES = ("aspect", "brightness", "contrast", "red", "green", "blue", "saturation", "age")
"""Numbers of an image: width divided by height, the looks of `STATISTICS`, and the patient's age in years."""

_WORDS = ("sex", "localization")
_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True)
class Population:
    """The images of one source."""

    name: str
    diagnoses: Mapping[str, int]  # images of each code
    frame: pd.DataFrame | None  # lesion_id, age, sex, localization; None where the table is not at hand
    looks: npt.NDArray[np.float32] | None  # (N, 8) columns STATISTICS; None where the images are not at hand

    def measure(self, name: str) -> npt.NDArray[np.float64]:
        """The known values of one of `MEASURES`; none where its source is not at hand."""
        if name == "age":
            found = np.asarray([] if self.frame is None else self.frame["age"], dtype=np.float64)
        elif name == "aspect":
            found = self._look("width") / self._look("height")
        else:
            found = self._look(name)
        return found[~np.isnan(found)]

    def _look(self, name: str) -> npt.NDArray[np.float64]:
        if self.looks is None:
            return np.empty(0)
        return self.looks[:, STATISTICS.index(name)].astype(np.float64)


def populations(first: Population, second: Population) -> dict[str, Any]:
    """Describe two populations and how far they are apart, ready for JSON.

    Returns:
        `populations`: for each `images`, `lesions`, `diagnoses` (images and share of each code), and `sex`,
        `localization` (images of each word), the quantiles, mean and number of known values of `MEASURES`; None where
        they are not at hand. `apart`: for `diagnoses`, `sex` and `localization` the total variation distance, half the
        sum of the differences of the shares; for `MEASURES` the largest difference of the two distribution functions
        (the statistic of Kolmogorov and Smirnov); each from 0, alike, to 1; None where one side is not at hand.
    """
    both = (first, second)
    apart: dict[str, float | None] = {"diagnoses": _variation(*(dict(each.diagnoses) for each in both))}
    for word in _WORDS:
        apart[word] = _variation(*(_counts(each, word) for each in both))
    for name in MEASURES:
        values = [each.measure(name) for each in both]
        known = all(len(each) for each in values)
        apart[name] = float(ks_2samp(*values, method="asymp").statistic) if known else None
    return {"populations": {each.name: _described(each) for each in both}, "apart": apart}


def _described(each: Population) -> dict[str, Any]:
    total = sum(each.diagnoses.values())
    frame = each.frame
    return {
        "images": total,
        "lesions": None if frame is None else int(frame["lesion_id"].nunique()),
        "diagnoses": {
            code: {"images": each.diagnoses.get(code, 0), "share": each.diagnoses.get(code, 0) / total}
            for code in CODES
        },
        **{word: _counts(each, word) for word in _WORDS},
        **{name: _quantiles(each.measure(name)) for name in MEASURES},
    }


def _counts(each: Population, word: str) -> dict[str, int] | None:
    if each.frame is None:
        return None
    return {str(value): int(images) for value, images in each.frame[word].value_counts().sort_index().items()}


def _quantiles(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float | int] | None:
    if not len(values):
        return None
    found = {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()}
    return {"known": len(values), "mean": float(np.mean(values)), **found}


def _variation(first: Mapping[str, int] | None, second: Mapping[str, int] | None) -> float | None:
    if first is None or second is None:
        return None
    totals = sum(first.values()), sum(second.values())
    words = first.keys() | second.keys()
    return sum(abs(first.get(word, 0) / totals[0] - second.get(word, 0) / totals[1]) for word in words) / 2
