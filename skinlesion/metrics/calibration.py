"""Calibration: whether a model is right as often as it is confident, and how good its probabilities are.

Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import Floats, Integers, ratio

Edges = Literal["width", "mass"]

_SMALLEST = 1e-12  # a smaller probability counts as this one, so that its logarithm is finite


def reliability_bins(predictions: Predictions, *, bins: int, edges: Edges = "width") -> pd.DataFrame:
    """Compare confidence, the probability of the likeliest diagnosis, with accuracy.

    Args:
        predictions: With known actual diagnoses.
        bins: How many bins divide the confidences. A bin holds its lower edge, the last one also its upper.
        edges: "width": the bins are equally wide and divide 0..1; "mass": they hold about equally many images
            (equal confidences stay together).

    Returns:
        One row a bin: low and high (edges), images (count), confidence and accuracy (means, NaN without
        images).

    Raises:
        ValueError: There is no bin.
    """
    confidence = predictions.probabilities.max(axis=1).astype(np.float64)
    right = predictions.targets == predictions.predicted_targets
    return _binned(confidence, right, edges=bin_edges(confidence, bins=bins, edges=edges))


def bin_edges(confidence: Floats, *, bins: int, edges: Edges) -> Floats:
    """The (at most B + 1) ends of bins of equal width in 0..1 or of equal mass.

    Raises:
        ValueError: There is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1")
    if edges == "width":
        return np.linspace(0, 1, bins + 1)
    # an edge is a confidence that occurs, so rounding moves no image to another bin; equal edges are one
    ends = np.quantile(confidence, np.linspace(0, 1, bins + 1), method="higher")
    return np.append(np.unique(ends)[:-1], ends[-1]) if np.ptp(ends) else np.array([ends[0], ends[0]])


def bin_of(confidence: Floats, edges: Floats) -> Integers:
    """The bin of each confidence: (N,) positions, 0..B-1."""
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2).astype(np.int64)


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """The gap between confidence and accuracy, averaged over images, from the frame of `reliability_bins`."""
    filled = bins[bins["images"] > 0]
    gaps = (filled["accuracy"] - filled["confidence"]).abs()
    return float(np.average(gaps, weights=filled["images"]))


def classwise_errors(predictions: Predictions, *, bins: int) -> dict[str, float]:
    """The calibration error of each diagnosis's probability by code, in bins of equal width.

    Kull et al., Beyond temperature scaling, NeurIPS 2019, arXiv:1910.12656; their classwise-ECE is the mean.
    """
    actual, values = predictions.targets, predictions.probabilities.astype(np.float64)
    edges = bin_edges(values, bins=bins, edges="width")
    return {
        code: expected_calibration_error(_binned(values[:, k], actual == k, edges=edges))
        for k, code in enumerate(predictions.taxonomy.codes)
    }


def brier(predictions: Predictions) -> Floats:
    """The squared error of each image, added up over the diagnoses (Brier 1950): (N,) in 0..2."""
    one_hot = np.eye(len(predictions.taxonomy))[predictions.targets]
    return np.asarray(((predictions.probabilities.astype(np.float64) - one_hot) ** 2).sum(axis=1))


def negative_log_likelihood(predictions: Predictions) -> Floats:
    """Minus the logarithm of the actual diagnosis's probability, which counts as at least 1e-12: (N,)."""
    actual = predictions.targets
    given = predictions.probabilities.astype(np.float64)[np.arange(len(actual)), actual]
    return np.asarray(-np.log(np.maximum(given, _SMALLEST)))


@dataclass(frozen=True)
class CalibrationScores:
    """Calibration scores; lower is better for each.

    Attributes:
        ece: Expected calibration error in bins of equal width.
        ece_mass: In bins of equal mass.
        classwise_ece: Mean of `classwise`.
        classwise: Calibration error of each diagnosis's probability, by code.
        brier: Mean Brier score, 0..2.
        nll: Mean negative log-likelihood, in nats.
    """

    ece: float
    ece_mass: float
    classwise_ece: float
    classwise: dict[str, float]
    brier: float
    nll: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def calibration_scores(predictions: Predictions, *, bins: int) -> CalibrationScores:
    """Score predictions with known actual diagnoses; `bins` divide the confidences."""
    classwise = classwise_errors(predictions, bins=bins)
    return CalibrationScores(
        ece=expected_calibration_error(reliability_bins(predictions, bins=bins)),
        ece_mass=expected_calibration_error(reliability_bins(predictions, bins=bins, edges="mass")),
        classwise_ece=float(np.mean(list(classwise.values()))),
        classwise=classwise,
        brier=float(brier(predictions).mean()),
        nll=float(negative_log_likelihood(predictions).mean()),
    )


def _binned(confidence: Floats, right: npt.NDArray[np.bool_], *, edges: Floats) -> pd.DataFrame:
    """Count images and average confidence and accuracy in each bin; columns as of `reliability_bins`."""
    place, bins = bin_of(confidence, edges), len(edges) - 1
    images = np.bincount(place, minlength=bins)
    sums = {
        name: np.bincount(place, weights=values.astype(np.float64), minlength=bins)
        for name, values in {"confidence": confidence, "accuracy": right}.items()
    }
    means = {name: ratio(total, images) for name, total in sums.items()}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "images": images, **means})
