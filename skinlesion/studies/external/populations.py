"""Comparison of two populations of images: diagnoses, patients and image statistics, which may explain a loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import ks_2samp

from skinlesion.data.image_statistics import STATISTICS

MEASURES = ("aspect", "brightness", "contrast", "red", "green", "blue", "saturation", "age")
"""Numbers of an image: width divided by height, image statistics of `STATISTICS`, and the patient's age in years."""

_CATEGORIES = ("sex", "localization")
_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}

Counts = dict[str, int]
Quantiles = dict[str, float]


@dataclass(frozen=True)
class Population:
    """Images of one source."""

    name: str
    diagnoses: Mapping[str, int]  # number of images by code
    frame: pd.DataFrame | None  # lesion_id, age, sex, localization; None where the table is not available
    statistics: npt.NDArray[np.float32] | None  # (N, 8), columns STATISTICS; None where the images are not available

    def measure(self, name: str) -> npt.NDArray[np.float64]:
        """Known values of one of `MEASURES`; none where its source is not available."""
        if name == "age":
            values = np.asarray([] if self.frame is None else self.frame["age"], dtype=np.float64)
        elif name == "aspect":
            values = self._statistic("width") / self._statistic("height")
        else:
            values = self._statistic(name)
        return values[~np.isnan(values)]

    def counts(self, category: str) -> Counts | None:
        """Number of images by value of `sex` or `localization`; None where the table is not available."""
        if self.frame is None:
            return None
        return {str(value): int(n) for value, n in self.frame[category].value_counts().sort_index().items()}

    def _statistic(self, name: str) -> npt.NDArray[np.float64]:
        if self.statistics is None:
            return np.empty(0)
        return self.statistics[:, STATISTICS.index(name)].astype(np.float64)


@dataclass(frozen=True)
class PopulationSummary:
    """Description of a population; None stands for what is not available.

    Attributes:
        images: Number of images.
        lesions: Number of lesions.
        diagnoses: `images` and `share` by code.
        facts: Number of images by value of `sex` and of `localization`; by name of `MEASURES`, the number of `known`
            values, `mean` and quantiles.
    """

    images: int
    lesions: int | None
    diagnoses: dict[str, dict[str, float]]
    facts: dict[str, Counts | Quantiles | None]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"images": self.images, "lesions": self.lesions, "diagnoses": self.diagnoses, **self.facts}


@dataclass(frozen=True)
class PopulationComparison:
    """Two populations and the distances between them.

    Attributes:
        populations: By name.
        apart: Distances from 0 (equal) to 1; None where one side is not available. For `diagnoses`, `sex` and
            `localization` the total variation distance, half the sum of the differences of the shares; for `MEASURES`
            the largest difference of the two distribution functions (Kolmogorov-Smirnov statistic).
    """

    populations: dict[str, PopulationSummary]
    apart: dict[str, float | None]


def compare_populations(first: Population, second: Population) -> PopulationComparison:
    """Describe two populations and measure the distances between them."""
    both = (first, second)
    apart = {"diagnoses": _total_variation(*(dict(each.diagnoses) for each in both))}
    apart |= {name: _total_variation(*(each.counts(name) for each in both)) for name in _CATEGORIES}
    for name in MEASURES:
        values = [each.measure(name) for each in both]
        known = all(len(each) for each in values)
        apart[name] = float(ks_2samp(*values, method="asymp").statistic) if known else None
    codes = list(dict.fromkeys([*first.diagnoses, *second.diagnoses]))
    return PopulationComparison({each.name: _summarize(each, codes) for each in both}, apart)


def _summarize(population: Population, codes: Sequence[str]) -> PopulationSummary:
    total, frame, counts = sum(population.diagnoses.values()), population.frame, population.diagnoses
    return PopulationSummary(
        images=total,
        lesions=None if frame is None else int(frame["lesion_id"].nunique()),
        diagnoses={code: {"images": counts.get(code, 0), "share": counts.get(code, 0) / total} for code in codes},
        facts={
            **{name: population.counts(name) for name in _CATEGORIES},
            **{name: _quantiles(population.measure(name)) for name in MEASURES},
        },
    )


def _quantiles(values: npt.NDArray[np.float64]) -> Quantiles | None:
    if not len(values):
        return None
    quantiles = {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()}
    return {"known": len(values), "mean": float(np.mean(values)), **quantiles}


def _total_variation(first: Counts | None, second: Counts | None) -> float | None:
    if first is None or second is None:
        return None
    totals = sum(first.values()), sum(second.values())
    names = dict.fromkeys([*first, *second])  # ordered, so that the sum is the same every time
    return sum(abs(first.get(name, 0) / totals[0] - second.get(name, 0) / totals[1]) for name in names) / 2
