"""The metrics of the ISIC challenges, as their scorer `isic-challenge-scoring` defines them, with intervals.

They differ from the classification report: a diagnosis counts as predicted where its probability is above 0.5, and an
image whose highest probability two diagnoses share has no predicted one. Codella et al. (2019), arXiv:1902.03368.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.errors import DataError
from skinlesion.inference.predictions import probabilities, targets
from skinlesion.metrics.auroc import auroc_and_ap, sort_class
from skinlesion.metrics.bootstrap import (
    JointStatistic,
    Method,
    Replicates,
    SumStatistic,
    bootstrap,
    lesion_index,
    sums_of,
    without_each,
)
from skinlesion.metrics.classification import Floats, Integers, lesion_names, ratio
from skinlesion.metrics.partial_auc import partial_auc
from skinlesion.taxonomy import CHALLENGE, CODES

COUNTED = ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")
RANKED = ("auc", "auc_sens_80", "ap")
METRICS = (*COUNTED, *RANKED)
"""Of each diagnosis, in the scorer's order."""

UNSCORED = "ISIC_0035068"  # of the test set of 2018: the scorer gives it no weight
_SENSITIVITY = 0.8
_GIVEN = {  # a ratio without a denominator: the scorer gives 1
    "sensitivity": "no image of {}",
    "specificity": "every image is {}",
    "dice": "no image of {}, and none taken for it",
    "ppv": "no image has {} above 0.5",
    "npv": "every image has {} above 0.5",
}


def challenge(table: pd.DataFrame, *, resamples: int, seed: int, level: float, method: Method) -> dict[str, Any]:
    """Score a predictions table as an entry to a challenge.

    Args:
        table: With known actual diagnoses.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".

    Returns:
        Plain data: `images`, `lesions`, `balanced_accuracy`, and by name of `METRICS` `macro_average` and, by the
        challenge's column, `per_category`; each number as `bootstrap` gives it. A ratio that has no denominator is 1,
        as the scorer has it, and says so in its `note`; areas that have none are None and left out of their mean.

    Raises:
        DataError: No image is left to score.
    """
    table = table[table["image_id"] != UNSCORED].reset_index(drop=True)
    if table.empty:
        raise DataError(f"no image to score: {UNSCORED}, the only one, has no weight in the challenge")
    index = lesion_index(table)
    statistic = JointStatistic((_counted(table, index), _Ranked(table, index)))
    lesions = int(index.max()) + 1
    found = bootstrap(statistic, lesions=lesions, resamples=resamples, seed=seed, level=level, method=method)
    remarks = _remarks(table)
    found = {name: _remarked(each, remarks.get(name)) for name, each in found.items()}
    return {
        "images": len(table),
        "lesions": int(lesion_names(table).nunique()),
        "balanced_accuracy": found["balanced_accuracy"],
        "macro_average": {name: found[name] for name in METRICS},
        "per_category": {code.upper(): {name: found[f"{name}_{code}"] for name in METRICS} for code in CHALLENGE},
    }


def _counted(table: pd.DataFrame, index: Integers) -> SumStatistic:
    actual, values = np.eye(len(CODES))[targets(table)], probabilities(table)  # (N, K)
    told = values > 0.5
    highest = values == values.max(axis=1, keepdims=True)
    hits = actual * highest * (highest.sum(axis=1, keepdims=True) == 1)
    blocks = (actual, told, actual * told, hits, np.ones((len(table), 1)))

    def finish(sums: Floats) -> Replicates:
        positive, said, both, hit, images = np.split(sums, np.arange(1, 5) * len(CODES), axis=1)  # (R, K), (R, 1)
        neither = images - positive - said + both
        each = {
            "accuracy": ratio(both + neither, images),
            "sensitivity": _or_one(both, positive),
            "specificity": _or_one(neither, images - positive),
            "dice": _or_one(2 * both, positive + said),
            "ppv": _or_one(both, said),
            "npv": _or_one(neither, images - said),
        }
        return {"balanced_accuracy": _mean(ratio(hit, positive)), **_named(each)}

    return SumStatistic(sums_of(np.concatenate(blocks, axis=1), index), finish)


class _Ranked:
    """Areas and average precision of each diagnosis."""

    def __init__(self, table: pd.DataFrame, index: Integers) -> None:
        actual, values = targets(table), probabilities(table)
        self._lesions = int(index.max()) + 1
        self._classes = [sort_class(actual == k, values[:, k], index, lesions=self._lesions) for k in range(len(CODES))]

    def resampled(self, weights: Floats) -> Replicates:
        counts = np.ascontiguousarray(weights.T)  # (L, R)
        areas = [auroc_and_ap(each, counts) for each in self._classes]
        partial = [partial_auc(each, counts, sensitivity=_SENSITIVITY) for each in self._classes]
        columns = ([area for area, _ in areas], partial, [precision for _, precision in areas])
        return _named({name: np.stack(values, axis=1) for name, values in zip(RANKED, columns, strict=True)})

    def jackknife(self) -> Replicates:
        return without_each(self, self._lesions)


def _named(each: dict[str, Floats]) -> Replicates:
    """The (R, K) numbers of each metric, by name and diagnosis, and their mean by name."""
    found = {f"{name}_{code}": values[:, k] for name, values in each.items() for k, code in enumerate(CODES)}
    return {**found, **{name: _mean(values) for name, values in each.items()}}


def _mean(values: Floats) -> Floats:
    """Average over the diagnoses where a number is defined: (R, K) to (R,)."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))


def _or_one(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, ratio(part, whole), 1.0)


def _remarks(table: pd.DataFrame) -> dict[str, str]:
    """What is to be said of numbers without a denominator, by name."""
    actual = targets(table)[:, None] == np.arange(len(CODES))  # (N, K)
    values = probabilities(table)
    told = values > 0.5
    without = {
        "sensitivity": ~actual.any(axis=0),
        "specificity": actual.all(axis=0),
        "dice": ~(actual | told).any(axis=0),
        "ppv": ~told.any(axis=0),
        "npv": told.all(axis=0),
    }
    remarks = {
        f"{name}_{code}": f"1 by the challenge's convention: {_GIVEN[name].format(code.upper())}"
        for name, absent in without.items()
        for k, code in enumerate(CODES)
        if absent[k]
    }
    for k, code in enumerate(CODES):
        if not actual[:, k].any() or actual[:, k].all():
            why = _GIVEN["specificity" if actual[:, k].all() else "sensitivity"].format(code.upper())
            remarks |= {f"{name}_{code}": f"not computable: {why}" for name in RANKED if name != "ap"}
        if not actual[:, k].any():
            remarks[f"ap_{code}"] = f"not computable: {_GIVEN['sensitivity'].format(code.upper())}"
    return remarks | _of_means(actual)


def _of_means(actual: npt.NDArray[np.bool_]) -> dict[str, str]:
    present = int(actual.any(axis=0).sum())
    ranked = present if present > 1 else 0
    counts = {"balanced_accuracy": present, "ap": present, "auc": ranked, "auc_sens_80": ranked}
    of = len(CODES)
    return {name: f"the mean of {count} of {of} diagnoses" for name, count in counts.items() if 0 < count < of}


def _remarked(each: dict[str, Any], remark: str | None) -> dict[str, Any]:
    """Add a remark to the note that the bootstrap left; it stands in place of a bare "not computable"."""
    if remark is None:
        return each
    notes = [remark, *([each["note"]] if "note" in each and each["value"] is not None else [])]
    return {**each, "note": "; ".join(notes)}
