"""Calibration: whether a model is right as often as it is confident, and how good its probabilities are.

Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.bootstrap import Replicates, SumStatistic, sums_of
from skinlesion.metrics.classification import Floats, Integers, ratio

Edges = Literal["width", "mass"]

_SMALLEST = 1e-12  # a smaller probability counts as this one, so that its logarithm is finite
_STEPS = 50  # of Newton's method, which takes about six where a fit exists
_REFINED = 4  # steps of Newton's method for a resample
_DRAWS = 200  # of labels for a noise floor


def reliability_bins(predictions: Predictions, *, bins: int, edges: Edges = "width") -> pd.DataFrame:
    """Compare confidence, the probability of the predicted diagnosis, with accuracy.

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
    confidence, right = predictions.confidence, predictions.targets == predictions.predicted_targets
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


def noise_floor(predictions: Predictions, *, bins: int, seed: int = 1) -> dict[str, Floats]:
    """Calibration errors of labels drawn from the probabilities themselves: what perfect calibration would show.

    Consistency resampling (Bröcker & Smith, Weather Forecast. 22:651-661 (2007), doi:10.1175/WAF993.1). A calibration
    error is never 0 on finitely many images, and speaks against a model only as far as it is above these. The images
    of a lesion share the draw of their label, as they share their label.

    Returns:
        By error, `ece`, `ece_mass`, `classwise_ece` and `ece_CODE` of each diagnosis: (D,) of D draws of all labels.
    """
    values, predicted = predictions.probabilities.astype(np.float64), predictions.predicted_targets
    uniform = np.random.default_rng(seed).random((predictions.groups, _DRAWS))[predictions.group]  # (N, D)
    labels = sum((below[:, None] < uniform).astype(np.int64) for below in values.cumsum(axis=1).T[:-1])  # (N, D)

    def error(confidence: Floats, hit: npt.NDArray[np.bool_], limits: Floats) -> Floats:
        inside = np.eye(len(limits) - 1)[bin_of(confidence, limits)]  # (N, B)
        return np.asarray(np.abs(inside.T @ (hit - confidence[:, None])).sum(axis=0) / len(values))

    named: dict[str, Edges] = {"ece": "width", "ece_mass": "mass"}
    found = {
        name: error(own := predictions.confidence, labels == predicted[:, None], bin_edges(own, bins=bins, edges=edges))
        for name, edges in named.items()
    }
    limits = bin_edges(values, bins=bins, edges="width")
    by_code = {
        f"ece_{code}": error(values[:, k], labels == k, limits) for k, code in enumerate(predictions.taxonomy.codes)
    }
    return {**found, "classwise_ece": np.mean(list(by_code.values()), axis=0), **by_code}


def target_calibration(predictions: Predictions, target: str) -> SumStatistic:
    """Calibration of a target's probability p: `intercept`, `slope` and `oe`, each with the target's name behind it.

    The logistic recalibration of Cox, Biometrika 45:562-565 (1958), doi:10.1093/biomet/45.3-4.562, as TRIPOD+AI asks
    for it (Van Calster et al., BMC Med. 17:230 (2019), doi:10.1186/s12916-019-1466-7). The intercept is that of logit p
    at slope 1, 0 where p is right on average and below 0 where it is too high; the slope is below 1 where p is too
    extreme; `oe` is the observed share of the target by the mean of p. A resample's fit is found from the likelihood's
    first three derivatives at the fit to all images, which need no more than sums.

    Args:
        predictions: With known actual diagnoses.
        target: A code, or a category such as "malignant".

    Returns:
        NaN where all images or none are of the target, and where the target's images have all the highest p.
    """
    given = predictions.target_score(target)
    own = predictions.taxonomy.mask(target)[predictions.targets].astype(np.float64)
    x, one = logit(np.clip(given, _SMALLEST, 1 - _SMALLEST)), np.ones(len(own))
    designs, offsets = (one[:, None], np.stack([one, x], axis=1)), (x, 0 * x)
    fits = [_logistic(design, own, offset=offset) for design, offset in zip(designs, offsets, strict=True)]
    derivatives = [_derivatives(*each, own) for each in zip(designs, offsets, fits, strict=True)]
    columns, ends = np.column_stack([own, given, one, *derivatives]), (3, 3 + derivatives[0].shape[1])

    def finish(sums: Floats) -> Replicates:
        observed, expected, images = sums[:, :3].T
        known = (observed > 0.5) & (observed < images - 0.5)
        parts = np.split(sums, ends, axis=1)[1:]
        intercept, line = (fit + _moved(part, len(fit)) for fit, part in zip(fits, parts, strict=True))
        found = {"intercept": intercept[:, 0], "slope": line[:, 1], "oe": ratio(observed, expected)}
        return {f"{name}_{target}": np.where(known, values, np.nan) for name, values in found.items()}

    return SumStatistic(sums_of(columns, predictions.group), finish)


def _logistic(design: Floats, own: Floats, *, offset: Floats) -> Floats:
    """Coefficients (P,) of a logistic regression by Newton's method; NaN where there is no fit."""
    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        given = expit(design @ found + offset)
        curvature = design.T @ (design * (given * (1 - given))[:, None])
        if not np.linalg.cond(curvature) < 1 / np.finfo(np.float64).eps:
            break
        step = np.linalg.solve(curvature, design.T @ (given - own))
        found = found - step
        if np.abs(step).max() < 1e-9:
            return found
    return np.full(design.shape[1], np.nan)


def _derivatives(design: Floats, offset: Floats, fit: Floats, own: Floats) -> Floats:
    """First three derivatives of each image's logistic loss at a fit: (N, P + P^2 + P^3)."""
    given, square = expit(design @ fit + offset), design[:, :, None] * design[:, None]
    spread, cube = given * (1 - given), (square[..., None] * design[:, None, None]).reshape(len(own), -1)
    bent = spread * (1 - 2 * given)
    return np.column_stack(
        [design * (given - own)[:, None], square.reshape(len(own), -1) * spread[:, None], cube * bent[:, None]]
    )


def _moved(sums: Floats, size: int) -> Floats:
    """How far the least loss is from where its summed derivatives (R, P + P^2 + P^3) were taken: (R, P)."""
    first, second, third = np.split(sums, (size, size + size**2), axis=1)
    second, third = second.reshape(-1, size, size), third.reshape(-1, size, size, size)
    moved = np.zeros_like(first)
    for _ in range(_REFINED):
        bend = np.einsum("rijk,rk->rij", third, moved)
        slope = first + np.einsum("rij,rj->ri", second + bend / 2, moved)
        moved = moved - np.linalg.solve(second + bend + _SMALLEST * np.eye(size), slope[..., None])[..., 0]
    return moved


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
        floor: By error, as from `noise_floor`, what perfectly calibrated probabilities would have on average.
    """

    ece: float
    ece_mass: float
    classwise_ece: float
    classwise: dict[str, float]
    brier: float
    nll: float
    floor: dict[str, float]

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
        floor={name: float(draws.mean()) for name, draws in noise_floor(predictions, bins=bins).items()},
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
