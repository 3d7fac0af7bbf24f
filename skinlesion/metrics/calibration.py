"""Calibration: whether a model is right as often as it is confident, and how good its probabilities are.

Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import predicted_targets, probabilities, targets
from skinlesion.metrics.classification import Floats, ratio
from skinlesion.taxonomy import CODES

Edges = Literal["width", "mass"]

_SMALLEST = 1e-12  # a smaller probability counts as this one, so that its logarithm is finite


def calibration(table: pd.DataFrame, *, bins: int, edges: Edges = "width") -> pd.DataFrame:
    """Compare confidence, the probability of the likeliest diagnosis, with accuracy.

    Args:
        table: A predictions table with known actual diagnoses.
        bins: How many bins divide the confidences. A bin holds its lower edge, the last one also its upper.
        edges: "width": the bins are equally wide and divide 0..1; "mass": they hold about equally many images
            (equal confidences stay together).

    Returns:
        One row a bin: low and high (edges), images (count), confidence and accuracy (means, NaN without
        images).

    Raises:
        ValueError: If there is no bin.
    """
    confidence = probabilities(table).max(axis=1).astype(np.float64)
    right = targets(table) == predicted_targets(table)
    return binned(confidence, right, edges=bin_edges(confidence, bins=bins, edges=edges))


def bin_edges(confidence: Floats, *, bins: int, edges: Edges) -> Floats:
    """The (at most B + 1) ends of bins of equal width in 0..1 or of equal mass.

    Raises:
        ValueError: If there is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1")
    if edges == "width":
        return np.linspace(0, 1, bins + 1)
    # an edge is a confidence that occurs, so rounding moves no image to another bin; equal edges are one
    ends = np.quantile(confidence, np.linspace(0, 1, bins + 1), method="higher")
    return np.append(np.unique(ends)[:-1], ends[-1]) if np.ptp(ends) else np.array([ends[0], ends[0]])


def bin_of(confidence: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """The bin of each confidence: (N,) positions, 0..B-1."""
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2).astype(np.int64)


def binned(confidence: Floats, right: npt.NDArray[Any], *, edges: Floats) -> pd.DataFrame:
    """Count images and average confidence and accuracy in each bin; columns as of `calibration`."""
    place, bins = bin_of(confidence, edges), len(edges) - 1
    images = np.bincount(place, minlength=bins)
    sums = {
        name: np.bincount(place, weights=values.astype(np.float64), minlength=bins)
        for name, values in {"confidence": confidence, "accuracy": right}.items()
    }
    means = {name: ratio(total, images) for name, total in sums.items()}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "images": images, **means})


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Return the gap between confidence and accuracy, averaged over images, from `calibration`'s frame."""
    filled = bins[bins["images"] > 0]
    gaps = (filled["accuracy"] - filled["confidence"]).abs()
    return float(np.average(gaps, weights=filled["images"]))


def classwise_error(table: pd.DataFrame, *, bins: int) -> dict[str, float]:
    """The calibration error of each diagnosis's probability, in bins of equal width.

    Of Kull et al., Beyond temperature scaling, NeurIPS 2019, arXiv:1910.12656; their classwise-ECE is the mean.
    """
    actual, values = targets(table), probabilities(table).astype(np.float64)
    edges = bin_edges(values, bins=bins, edges="width")
    return {
        code: expected_calibration_error(binned(values[:, k], actual == k, edges=edges)) for k, code in enumerate(CODES)
    }


def brier(table: pd.DataFrame) -> Floats:
    """The squared error of each image, added up over the diagnoses (Brier 1950): (N,) in 0..2."""
    wrong: Floats = probabilities(table).astype(np.float64) - np.eye(len(CODES))[targets(table)]
    return np.asarray((wrong**2).sum(axis=1))


def negative_log_likelihood(table: pd.DataFrame) -> Floats:
    """Minus the logarithm of the actual diagnosis's probability, which counts as at least `_SMALLEST`: (N,)."""
    actual = targets(table)
    given = probabilities(table).astype(np.float64)[np.arange(len(actual)), actual]
    return np.asarray(-np.log(np.maximum(given, _SMALLEST)))


def calibration_scores(table: pd.DataFrame, *, bins: int) -> dict[str, Any]:
    """`ece` (equal width), `ece_mass`, `classwise_ece` and its parts by code, `brier` and `nll` of a table."""
    parts = classwise_error(table, bins=bins)
    return {
        "ece": expected_calibration_error(calibration(table, bins=bins)),
        "ece_mass": expected_calibration_error(calibration(table, bins=bins, edges="mass")),
        "classwise_ece": float(np.mean(list(parts.values()))),
        "classwise": parts,
        "brier": float(brier(table).mean()),
        "nll": float(negative_log_likelihood(table).mean()),
    }
