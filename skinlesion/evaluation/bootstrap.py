"""Confidence intervals of the headline metrics, by resampling lesions."""

import numpy as np
import pandas as pd

from skinlesion.diagnoses import CODES
from skinlesion.evaluation.metrics import HEADLINE, Floats, Integers, lesion_names
from skinlesion.evaluation.predictions import predicted_targets, targets


def intervals(table: pd.DataFrame, *, resamples: int, seed: int, level: float) -> dict[str, list[float]]:
    """Return percentile bootstrap intervals of accuracy, macro-F1 and balanced accuracy.

    Lesions are drawn with replacement, each with all its images, because images of one lesion are alike:
    drawing images would make the intervals too narrow (Field & Welsh, J. R. Stat. Soc. B 69:369-390 (2007),
    doi:10.1111/j.1467-9868.2007.00593.x). The percentile interval is that of Efron & Tibshirani,
    An Introduction to the Bootstrap (1993), chapter 13, doi:10.1201/9780429246593.

    Args:
        table: A predictions table with known actual diagnoses. Images of unknown lesion are a lesion each.
        resamples: How many times as many lesions as there are are drawn.
        seed: Of the draws.
        level: The share of resamples inside the interval, between 0 and 1, for example 0.95.

    Returns:
        For each metric [low, high]. A diagnosis that a resample misses is left out of its means.

    Raises:
        ValueError: If `resamples` or `level` is out of range.
    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples is {resamples} and level {level}; expected at least 1 and between 0 and 1")
    kinds, lesions = np.unique(_lesion_confusions(table), axis=0, return_counts=True)
    confusion = _resampled(kinds, lesions, resamples=resamples, seed=seed)
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {name: np.quantile(metric(confusion), tails).tolist() for name, metric in HEADLINE.items()}


def _lesion_confusions(table: pd.DataFrame) -> Integers:
    """Count for each lesion its images by actual and predicted class: (lesions, K * K)."""
    lesion, names = pd.factorize(lesion_names(table))
    cells = len(CODES) ** 2
    cell = targets(table) * len(CODES) + predicted_targets(table)
    return np.bincount(lesion * cells + cell, minlength=len(names) * cells).reshape(len(names), cells)


def _resampled(kinds: Integers, lesions: Integers, *, resamples: int, seed: int) -> Floats:
    """Draw confusion matrices.

    The metrics cannot tell apart lesions with the same confusion matrix. Drawing how many of each kind are
    in a resample (multinomial) is the same as drawing lesion by lesion, and needs tens of numbers instead of
    thousands.

    Args:
        kinds: (P, K * K) the different confusion matrices of lesions.
        lesions: (P,) how many lesions are of each kind.
        resamples: R.
        seed: Of the draws.

    Returns:
        (R, K, K).
    """
    total = int(lesions.sum())
    drawn = np.random.default_rng(seed).multinomial(total, lesions / total, size=resamples)
    # float64 holds these counts exactly and multiplies faster than integers
    return (drawn.astype(np.float64) @ kinds.astype(np.float64)).reshape(resamples, len(CODES), len(CODES))
