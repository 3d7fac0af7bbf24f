"""Scaling of probabilities, fitted on validation, so that they match how often they are right; and the decision.

Temperature and vector scaling are those of Guo, Pleiss, Sun & Weinberger, On calibration of modern neural networks,
ICML 2017, arXiv:1706.04599. One temperature cannot undo class weights or a shift of prevalence; one bias a diagnosis
beside it can (bias-corrected temperature scaling: Alexandari, Kundaje & Shrikumar, ICML 2020, arXiv:1901.06852). They
scale logits; the logarithm of a probability is its logit up to a constant that softmax takes out, so probabilities,
also the mean of several members', are enough. Needs numpy alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NotRequired

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict  # pydantic takes this one alone before Python 3.12

from skinlesion.config.schema import OneOf, Positive, Range
from skinlesion.errors import DataError

Floats = npt.NDArray[np.float64]

METHODS = ("none", "temperature", "bias", "vector")
"""Kinds of scaling, the simplest first."""
RULES = ("likeliest", "balanced")
"""Which diagnosis is predicted: the likeliest one of the vote, or that of the largest probability by prior."""
SMALLEST = 1e-12  # a smaller probability counts as this one, so that its logarithm is finite
HOTTEST = 20.0  # temperatures are searched between its inverse and itself
_HALVINGS = 60
_STEPS = 100  # of Newton's method
_CLOSE = 1e-10  # the gradient at which it stops


class VectorScaling(TypedDict):
    """Factors and shifts of the logits, one a diagnosis."""

    weight: list[float]
    bias: list[float]


class MemberScaling(TypedDict):
    """Scaling of one member; None: could not be fitted."""

    name: str
    temperature: Positive | None
    vector: VectorScaling | None


class FoldScores(TypedDict):
    """Scores of images that are scaled by what was fitted to other lesions."""

    nll: float
    brier: float
    ece: float
    excess: NotRequired[float]  # of nll over that of the best method, paired
    noise: NotRequired[Annotated[float, Range(0)]]  # standard error of the excess over lesions


class Calibration(TypedDict):
    """The calibration that an ensemble's file keeps; plain data."""

    method: Annotated[str, OneOf(METHODS)]  # the one in use
    images: NotRequired[Annotated[int, Range(0)]]  # to which it was fitted
    part: NotRequired[str]  # of the split, of these images: calibration, or val, which chose epoch and members too
    temperature: NotRequired[Positive]
    bias: NotRequired[VectorScaling]  # the same weight for all
    vector: NotRequired[VectorScaling]
    folds: NotRequired[dict[str, FoldScores | None]]  # by method; None: could not be fitted in a fold
    note: NotRequired[str]  # says why nothing was fitted
    members: NotRequired[list[MemberScaling]]  # of each member alone, for comparison


class Decision(TypedDict):
    """How the predicted diagnosis follows from the probabilities."""

    rule: Annotated[str, OneOf(RULES)]
    prior: dict[str, Annotated[float, Range(0, 1, above=True)]]  # share of each diagnosis, by code in class order


def tempered(probabilities: npt.ArrayLike, temperature: float) -> Floats:
    """Flatten (temperature above 1) or sharpen (below 1) probabilities: softmax(log p / T), (N, K) -> (N, K).

    Raises:
        ValueError: The temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected more than 0")
    return _softmax(_logits(probabilities) / temperature)


def vector_scaled(probabilities: npt.ArrayLike, weight: npt.ArrayLike, bias: npt.ArrayLike) -> Floats:
    """Scale and shift each diagnosis's logit: softmax(w log p + b), with (N, K), (K,) and (K,) -> (N, K)."""
    return _softmax(_logits(probabilities) * np.asarray(weight, dtype=np.float64) + np.asarray(bias, dtype=np.float64))


def calibrated(probabilities: npt.ArrayLike, calibration: Mapping[str, Any] | None) -> Floats:
    """Calibrate the mean of the members' probabilities as an ensemble's file says.

    Args:
        probabilities: (N, K), uncalibrated.
        calibration: As from `posthoc.fit_calibration`; None, or the method "none", leaves them as they are.

    Returns:
        (N, K).

    Raises:
        DataError: The method is not known.
    """
    method = "none" if calibration is None else calibration["method"]
    if calibration is None or method == "none":
        return np.array(probabilities, dtype=np.float64)
    if method == "temperature":
        return tempered(probabilities, float(calibration["temperature"]))
    if method in ("bias", "vector"):
        return vector_scaled(probabilities, **calibration[method])
    raise DataError(f"calibration method {method} is not known; expected {', '.join(METHODS)}: update skinlesion")


def prior_of(counts: Sequence[int], codes: Sequence[str]) -> dict[str, float]:
    """Share of each diagnosis among images, by code; one without an image counts as one with one image."""
    images = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    return dict(zip(codes, (images / images.sum()).tolist(), strict=True))


def balanced_scores(probabilities: npt.ArrayLike, prior: npt.ArrayLike) -> Floats:
    """Probabilities by priors, (N, K) and (K,) -> (N, K) with row sums of 1: as if all diagnoses were equally frequent.

    The largest one is the prediction of the best balanced accuracy where the probabilities are calibrated (Menon et
    al., Long-tail learning via logit adjustment, ICLR 2021, arXiv:2007.07314). Those of a loss with class weights are
    partly balanced already, so that uncalibrated ones are corrected twice.
    """
    scores = np.asarray(probabilities, dtype=np.float64) / np.asarray(prior, dtype=np.float64)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def bisect(slope: Callable[[float], float], low: float, high: float) -> float:
    """Find where the slope of a convex function changes its sign; an end where it does not."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return (low + high) / 2


def fit_temperature(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Fit the temperature of the least negative log-likelihood, between 1 / `HOTTEST` and `HOTTEST`, by bisection.

    Args:
        probabilities: (N, K) of validation images.
        targets: (N,) class indices.

    Raises:
        DataError: There are fewer than two images, all have one diagnosis, or a probability is not finite.
    """
    logits, actual = _checked(probabilities, targets)

    def slope(colder: float) -> float:
        values = _softmax(logits * np.exp(colder))
        return float(((values * logits).sum(axis=1) - logits[np.arange(len(actual)), actual]).mean())

    # over log(1 / T), in which the slope's sign changes once: the loss is convex in 1 / T
    return float(np.exp(-bisect(slope, -np.log(HOTTEST), np.log(HOTTEST))))


def fit_bias(probabilities: npt.ArrayLike, targets: npt.ArrayLike, *, ridge: float = 1.0) -> VectorScaling:
    """Fit one weight for all diagnoses and a bias for each; arguments as of `fit_vector`."""
    classes = np.shape(probabilities)[1]
    free = np.zeros((2 * classes, classes + 1))
    free[:classes, 0], free[classes:, 1:] = 1, np.eye(classes)
    return _fit_scaling(probabilities, targets, free, ridge=ridge)


def fit_vector(probabilities: npt.ArrayLike, targets: npt.ArrayLike, *, ridge: float = 1.0) -> VectorScaling:
    """Fit the weight and bias of vector scaling of the least negative log-likelihood, by Newton's method.

    Args:
        probabilities: (N, K) of validation images.
        targets: (N,) class indices.
        ridge: Weight, in images, of the penalty 1/2 ridge (|w - 1|² + |b|²) that is added to the sum over images and
            keeps the scaling of diagnoses with few images near the identity.

    Raises:
        DataError: As for `fit_temperature`.
    """
    return _fit_scaling(probabilities, targets, np.eye(2 * np.shape(probabilities)[1]), ridge=ridge)


FITS: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], dict[str, Any]]] = {
    "none": lambda probabilities, targets: {},
    "temperature": lambda probabilities, targets: {"temperature": fit_temperature(probabilities, targets)},
    "bias": lambda probabilities, targets: {"bias": fit_bias(probabilities, targets)},
    "vector": lambda probabilities, targets: {"vector": fit_vector(probabilities, targets)},
}
"""By method, what fits it to probabilities (N, K) and targets (N,), for `calibrated`."""


def _fit_scaling(probabilities: npt.ArrayLike, targets: npt.ArrayLike, free: Floats, *, ridge: float) -> VectorScaling:
    """Fit weights and biases (2K,) that are those of the identity plus `free` (2K, P) times P numbers."""
    logits, actual = _checked(probabilities, targets)
    images, classes = logits.shape
    wanted = np.eye(classes)[actual]
    neutral = np.concatenate([np.ones(classes), np.zeros(classes)])

    def scaled(moved: Floats) -> Floats:
        weight, bias = np.split(neutral + free @ moved, 2)
        return logits * weight + bias

    def loss(moved: Floats) -> float:
        return float(-(_log_softmax(scaled(moved)) * wanted).sum() + ridge / 2 * (moved**2).sum())

    moved = np.zeros(free.shape[1])
    for _ in range(_STEPS):
        values = _softmax(scaled(moved))
        wrong = values - wanted
        slope = free.T @ np.concatenate([(wrong * logits).sum(axis=0), wrong.sum(axis=0)]) + ridge * moved
        if np.abs(slope).max() < _CLOSE * images:
            break
        curvature = free.T @ _curvature(values, logits) @ free + ridge * np.eye(len(moved))
        moved = _downhill(moved, np.linalg.solve(curvature, slope), slope, loss=loss)
    weight, bias = np.split(neutral + free @ moved, 2)
    return {"weight": weight.tolist(), "bias": bias.tolist()}


def _curvature(values: Floats, logits: Floats) -> Floats:
    """The Hessian of the summed loss: (2K, 2K)."""
    kinds = (logits, np.ones_like(logits))
    blocks = [
        [np.diag((values * left * right).sum(axis=0)) - (values * left).T @ (values * right) for right in kinds]
        for left in kinds
    ]
    return np.asarray(np.block(blocks))


def _downhill(found: Floats, step: Floats, slope: Floats, *, loss: Callable[[Floats], float]) -> Floats:
    """Take the Newton step, or the first half, quarter … of it that lowers the loss enough (Armijo)."""
    now, share = loss(found), 1.0
    while share > 1e-6 and loss(found - share * step) > now - 1e-4 * share * float(slope @ step):
        share /= 2
    return found - share * step


def _logits(probabilities: npt.ArrayLike) -> Floats:
    return np.asarray(np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST)))


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _checked(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    values, actual = np.asarray(probabilities, dtype=np.float64, order="F"), np.asarray(targets, dtype=np.int64)
    if values.ndim != 2 or actual.shape != values.shape[:1]:
        raise ValueError(f"probabilities {values.shape} and targets {actual.shape} must be (N, K) and (N,)")
    if not np.isfinite(values).all():
        raise DataError("a probability is not finite; scaling cannot be fitted: evaluate the model again")
    if len(np.unique(actual)) < 2:
        raise DataError(
            f"{len(actual)} validation images of {len(np.unique(actual))} diagnosis: scaling is not computable; "
            "fit it on images of at least two diagnoses"
        )
    return _logits(values), actual
