"""Calibration: whether a model is right as often as it is confident.

Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
"""

import numpy as np
import pandas as pd

from skinlesion.evaluation.metrics import ratio
from skinlesion.evaluation.predictions import predicted_targets, probabilities, targets


def calibration(table: pd.DataFrame, *, bins: int) -> pd.DataFrame:
    """Compare confidence, the probability of the likeliest diagnosis, with accuracy.

    Args:
        table: A predictions table with known actual diagnoses.
        bins: How many bins of equal width divide the confidences 0..1. A bin holds its lower edge, the last
            one also 1.

    Returns:
        One row a bin: low and high (edges), images (count), confidence and accuracy (means, NaN without
        images).

    Raises:
        ValueError: If there is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; expected at least 1")
    edges = np.linspace(0, 1, bins + 1)
    confidence = probabilities(table).max(axis=1).astype(np.float64)
    right = (targets(table) == predicted_targets(table)).astype(np.float64)
    place = np.minimum(np.searchsorted(edges, confidence, side="right") - 1, bins - 1)
    images = np.bincount(place, minlength=bins)
    sums = {
        name: np.bincount(place, weights=values, minlength=bins)
        for name, values in {"confidence": confidence, "accuracy": right}.items()
    }
    means = {name: ratio(total, images) for name, total in sums.items()}
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "images": images, **means})


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """Return the gap between confidence and accuracy, averaged over images, from `calibration`'s frame."""
    filled = bins[bins["images"] > 0]
    gaps = (filled["accuracy"] - filled["confidence"]).abs()
    return float(np.average(gaps, weights=filled["images"]))
