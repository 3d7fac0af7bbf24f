"""Metrics of a predictions table: of the confusion matrix, and of how the probabilities rank the images."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from skinlesion.inference.predictions import predicted_targets, probabilities, targets
from skinlesion.taxonomy import CODES

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def confusions(actual: Integers, predicted: Integers, *, classes: int = len(CODES)) -> Integers:
    """Count how often each class was taken for each.

    Args:
        actual: (N,) class indices, or (..., N).
        predicted: (..., N) class indices: one confusion matrix for each leading position.
        classes: How many classes there are, K.

    Returns:
        (..., K, K) counts: rows are actual classes, columns predicted ones.

    Raises:
        ValueError: If an index lies outside 0..K-1.
    """
    actual, predicted = np.broadcast_arrays(actual, predicted)
    if actual.size and not 0 <= min(actual.min(), predicted.min()) <= max(actual.max(), predicted.max()) < classes:
        raise ValueError(f"class indices must lie in 0..{classes - 1}")
    cells = (actual * classes + predicted).reshape(math.prod(actual.shape[:-1]), actual.shape[-1])  # (B, N)
    first_cells = np.arange(len(cells))[:, None] * classes**2
    counts = np.bincount((cells + first_cells).ravel(), minlength=len(cells) * classes**2)
    return counts.reshape(*actual.shape[:-1], classes, classes)


def accuracy(confusion: npt.ArrayLike) -> Floats:
    """Return the share of images on the diagonal: (..., K, K) -> (...); NaN without images."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(_diagonal(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def macro_f1(confusion: npt.ArrayLike) -> Floats:
    """Return the mean F1 of the classes that are actual or predicted at least once.

    A class absent from both has no F1 and is left out, as scikit-learn and torchmetrics do by default.

    Args:
        confusion: (..., K, K) counts or weights.

    Returns:
        (...) in 0..1; NaN without images.
    """
    return _mean_of_defined(f1(confusion))


def balanced_accuracy(confusion: npt.ArrayLike) -> Floats:
    """Return the mean recall of the classes that have images: (..., K, K) -> (...); NaN without images."""
    return _mean_of_defined(recall(confusion))


def f1(confusion: npt.ArrayLike) -> Floats:
    """Return 2 TP / (2 TP + FP + FN) of each class: (..., K, K) -> (..., K); NaN for an absent class."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(2 * _diagonal(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def recall(confusion: npt.ArrayLike) -> Floats:
    """Return the found share of a class's images: (..., K, K) -> (..., K); NaN for a class without."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(_diagonal(counts), counts.sum(axis=-1))


def precision(confusion: npt.ArrayLike) -> Floats:
    """Return the right share of a class's predictions: (..., K, K) -> (..., K); NaN for a class without."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(_diagonal(counts), counts.sum(axis=-2))


HEADLINE: Mapping[str, Callable[[npt.ArrayLike], Floats]] = MappingProxyType(
    {"accuracy": accuracy, "macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy}
)
"""The metrics by which models are compared: each takes confusion matrices."""


def headline(table: pd.DataFrame) -> dict[str, float]:
    """Return accuracy, macro-F1 and balanced accuracy of a predictions table, each in 0..1."""
    confusion = confusions(targets(table), predicted_targets(table))
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


def report(table: pd.DataFrame) -> dict[str, Any]:
    """Return the classification report of a predictions table, ready for JSON.

    Returns:
        `images` and `lesions` (counts; an image of unknown lesion counts as a lesion), the headline metrics,
        `macro_auroc` and `macro_ap` (means over the diagnoses where they are defined), and `per_diagnosis`:
        for each code `precision`, `recall`, `f1`, `auroc` (one against the rest), `ap` (average precision)
        and `support` (images). What is undefined is None: precision of a diagnosis that is never predicted;
        recall and ap of one without images; f1 of one with neither; auroc of one that no or every image has.
    """
    actual, values = targets(table), probabilities(table)
    confusion = confusions(actual, predicted_targets(table))
    areas = [one_against_rest(actual == k, values[:, k]) for k in range(len(CODES))]
    columns: dict[str, list[float | None]] = {
        "precision": [_defined(value) for value in precision(confusion)],
        "recall": [_defined(value) for value in recall(confusion)],
        "f1": [_defined(value) for value in f1(confusion)],
        "auroc": [auroc for auroc, _ in areas],
        "ap": [ap for _, ap in areas],
    }
    support = confusion.sum(axis=1).tolist()
    return {
        "images": len(table),
        "lesions": int(lesion_names(table).nunique()),
        **headline(table),
        "macro_auroc": _mean(columns["auroc"]),
        "macro_ap": _mean(columns["ap"]),
        "per_diagnosis": {
            code: {**{name: column[k] for name, column in columns.items()}, "support": support[k]}
            for k, code in enumerate(CODES)
        },
    }


def one_against_rest(
    positive: npt.NDArray[np.bool_], probability: npt.NDArray[Any]
) -> tuple[float | None, float | None]:
    """Judge how one probability ranks the images of its class before the others.

    Args:
        positive: (N,) whether an image has the diagnosis.
        probability: (N,) of the diagnosis.

    Returns:
        Area under the ROC curve (ties count a half; None without positives or without negatives) and average
        precision (the area under the precision-recall steps, not interpolated; None without positives).
    """
    if not positive.any():
        return None, None
    auroc = None if positive.all() else float(roc_auc_score(positive, probability))
    return auroc, float(average_precision_score(positive, probability))


def lesion_names(table: pd.DataFrame) -> "pd.Series[str]":
    """Return the lesion of each image; an image of unknown lesion counts as a lesion of its own."""
    return table["lesion_id"].where(table["lesion_id"] != "", "image " + table["image_id"])


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Divide; NaN where the whole is zero."""
    part, whole = np.broadcast_arrays(part, whole)
    share: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return share


def _diagonal(counts: Floats) -> Floats:
    diagonal: Floats = np.diagonal(counts, axis1=-2, axis2=-1)
    return diagonal


def _mean_of_defined(values: Floats) -> Floats:
    """Average over the last axis what is not NaN: (..., K) -> (...)."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
