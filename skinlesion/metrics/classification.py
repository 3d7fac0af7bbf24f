"""Metrics of predictions: of the confusion matrix, and of how the probabilities rank the images."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from skinlesion.inference.predictions import Predictions

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Divide; NaN where the whole is zero."""
    part, whole = np.broadcast_arrays(part, whole)
    share: Floats = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return share


def mean_of_defined(values: Floats) -> Floats:
    """Average over the last axis, leaving out NaN: (..., K) -> (...)."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def confusions(actual: Integers, predicted: Integers, *, classes: int) -> Integers:
    """Count how often each class was predicted as each.

    Args:
        actual: (N,) class indices, or (..., N).
        predicted: (..., N) class indices: one confusion matrix for each leading position.
        classes: How many classes there are, K.

    Returns:
        (..., K, K) counts: rows are actual classes, columns predicted ones.

    Raises:
        ValueError: An index lies outside 0..K-1.
    """
    actual, predicted = np.broadcast_arrays(actual, predicted)
    if actual.size and not 0 <= min(actual.min(), predicted.min()) <= max(actual.max(), predicted.max()) < classes:
        raise ValueError(f"class indices must lie in 0..{classes - 1}")
    cells = (actual * classes + predicted).reshape(math.prod(actual.shape[:-1]), actual.shape[-1])  # (B, N)
    first_cells = np.arange(len(cells))[:, None] * classes**2
    counts = np.bincount((cells + first_cells).ravel(), minlength=len(cells) * classes**2)
    return counts.reshape(*actual.shape[:-1], classes, classes)


def confusion_of(predictions: Predictions) -> Integers:
    """The (K, K) confusion matrix of predictions: rows are actual diagnoses, columns predicted ones."""
    classes = len(predictions.taxonomy)
    return confusions(predictions.targets, predictions.predicted_targets, classes=classes)


def accuracy(confusion: npt.ArrayLike) -> Floats:
    """The share of images on the diagonal: (..., K, K) -> (...); NaN without images."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(_diagonal(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def macro_f1(confusion: npt.ArrayLike) -> Floats:
    """The mean F1 of the classes that are actual or predicted at least once: (..., K, K) -> (...), NaN without images.

    A class absent from both has no F1 and is left out, as scikit-learn and torchmetrics do by default.
    """
    return mean_of_defined(f1(confusion))


def balanced_accuracy(confusion: npt.ArrayLike) -> Floats:
    """The mean recall of the classes that have images: (..., K, K) -> (...); NaN without images."""
    return mean_of_defined(recall(confusion))


def f1(confusion: npt.ArrayLike) -> Floats:
    """2 TP / (2 TP + FP + FN) of each class: (..., K, K) -> (..., K); NaN for an absent class."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(2 * _diagonal(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def recall(confusion: npt.ArrayLike) -> Floats:
    """The share of a class's images that are predicted as it: (..., K, K) -> (..., K); NaN for a class without."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(_diagonal(counts), counts.sum(axis=-1))


def precision(confusion: npt.ArrayLike) -> Floats:
    """The share of a class's predictions that are right: (..., K, K) -> (..., K); NaN for a class without."""
    counts = np.asarray(confusion, dtype=np.float64)
    return ratio(_diagonal(counts), counts.sum(axis=-2))


HEADLINE: Mapping[str, Callable[[npt.ArrayLike], Floats]] = MappingProxyType(
    {"accuracy": accuracy, "macro_f1": macro_f1, "balanced_accuracy": balanced_accuracy}
)
"""The metrics by which models are compared: each takes confusion matrices."""

HEADLINE_NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy"}
"""What tables and figures call them."""


def headline(predictions: Predictions) -> dict[str, float]:
    """Accuracy, macro-F1 and balanced accuracy of predictions, each in 0..1."""
    confusion = confusion_of(predictions)
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


@dataclass(frozen=True)
class DiagnosisMetrics:
    """Metrics of one diagnosis against the rest.

    Attributes:
        precision: None if the diagnosis is never predicted.
        recall: None without images.
        f1: None with neither.
        auroc: Area under the ROC curve; None if no or every image has the diagnosis.
        ap: Average precision; None without images.
        support: Images of the diagnosis.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    ap: float | None
    support: int


@dataclass(frozen=True)
class ClassificationReport:
    """Metrics of predictions without intervals; the macro areas average the diagnoses that have one."""

    images: int
    lesions: int
    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    macro_auroc: float | None
    macro_ap: float | None
    per_diagnosis: dict[str, DiagnosisMetrics]  # by code

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def report(predictions: Predictions) -> ClassificationReport:
    """The classification report of predictions with known actual diagnoses."""
    actual, confusion = predictions.targets, confusion_of(predictions)
    areas = [one_against_rest(actual == k, each) for k, each in enumerate(predictions.probabilities.T)]
    aurocs, aps = ([area for area in column if area is not None] for column in zip(*areas, strict=True))
    precisions, recalls, f1s = precision(confusion), recall(confusion), f1(confusion)
    support = confusion.sum(axis=1).tolist()
    return ClassificationReport(
        images=len(predictions),
        lesions=predictions.lesions,
        **headline(predictions),
        macro_auroc=float(np.mean(aurocs)) if aurocs else None,
        macro_ap=float(np.mean(aps)) if aps else None,
        per_diagnosis={
            code: DiagnosisMetrics(
                _defined(precisions[k]), _defined(recalls[k]), _defined(f1s[k]), *areas[k], support[k]
            )
            for k, code in enumerate(predictions.taxonomy.codes)
        },
    )


def one_against_rest(
    positive: npt.NDArray[np.bool_], probability: npt.NDArray[Any]
) -> tuple[float | None, float | None]:
    """Measure how one probability ranks the images of its class before the others.

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


def _diagonal(counts: Floats) -> Floats:
    diagonal: Floats = np.diagonal(counts, axis1=-2, axis2=-1)
    return diagonal


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
