"""Fit calibration, operating points and prediction sets to the vote of an ensemble on validation."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from skinlesion.errors import DataError
from skinlesion.inference import conformal, ood, operating_points
from skinlesion.inference.calibration import Calibration, FoldScores, calibrated, fit_temperature, fit_vector
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.calibration import calibration_scores

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5  # of lesions, in which scaling is tried on those that it was not fitted to


class FittedDecisions(TypedDict):
    """Operating points and prediction sets as an ensemble keeps them."""

    operating_points: list[operating_points.OperatingPoint]
    conformal: list[conformal.ConformalSets]  # the first is the one in use


def with_calibration(predictions: Predictions, calibration: Mapping[str, Any] | None) -> Predictions:
    """The same images with calibrated probabilities."""
    return predictions.with_probabilities(calibrated(predictions.probabilities, calibration))


def fit_calibration(predictions: Predictions, *, method: str, bins: int) -> Calibration:
    """Fit both kinds of scaling, and try them on lesions that they were not fitted to.

    The mean of the members' probabilities is scaled, not each member before the vote: members that are calibrated one
    by one need not give a calibrated mean (Wu & Gales, arXiv:2101.05397), and one temperature for the mean changes
    no prediction, so that the vote that was chosen stays the vote.

    Args:
        predictions: Uncalibrated predictions for the validation part.
        method: "temperature", "vector" or "none": which is to be used.
        bins: Number of bins of the calibration errors.

    Returns:
        Both fits and their scores in the folds. Where nothing can be fitted the method is "none" and the note says why.
    """
    fits: dict[str, Callable[[Predictions], Mapping[str, Any]]] = {
        "none": lambda part: {},
        "temperature": lambda part: {"temperature": fit_temperature(part.probabilities, part.targets)},
        "vector": lambda part: {"vector": fit_vector(part.probabilities, part.targets)},
    }
    try:
        temperature = fit_temperature(predictions.probabilities, predictions.targets)
        vector = fit_vector(predictions.probabilities, predictions.targets)
    except DataError as error:
        return {"method": "none", "images": len(predictions), "note": str(error)}
    return {
        "method": method,
        "temperature": temperature,
        "vector": vector,
        "images": len(predictions),
        "folds": {name: _cross_validated(predictions, name, fit, bins=bins) for name, fit in fits.items()},
    }


def worsens_nll(calibration: Mapping[str, Any]) -> bool:
    """Whether the method in use makes the likelihood of left-out lesions worse than no scaling."""
    folds = calibration.get("folds") or {}
    own, without = folds.get(calibration["method"]), folds.get("none")
    return bool(own and without and own["nll"] > without["nll"] + 1e-9)


def fit_decisions(
    predictions: Predictions, *, sensitivities: Sequence[float], alphas: Sequence[float], score: conformal.Score
) -> FittedDecisions:
    """Choose operating points and the thresholds of prediction sets.

    The sets are fitted on the first image of each lesion: the images of one lesion are not exchangeable with others.

    Args:
        predictions: Calibrated predictions for the validation part.
        sensitivities: That the operating points are to reach.
        alphas: The shares of images whose set may lack the actual diagnosis; the first is the one in use.
        score: "aps" or "raps".
    """
    values, actual, taxonomy = predictions.probabilities, predictions.targets, predictions.taxonomy
    ordered = predictions.sorted()
    one = ordered.select(np.unique(ordered.group, return_index=True)[1])
    return {
        "operating_points": operating_points.fit(values, actual, sensitivities=sensitivities, taxonomy=taxonomy),
        "conformal": [
            conformal.fit(one.probabilities, one.targets, alpha=alpha, method=score, taxonomy=taxonomy)
            for alpha in alphas
        ],
    }


def _cross_validated(
    predictions: Predictions, method: str, fit: Callable[[Predictions], Mapping[str, Any]], *, bins: int
) -> FoldScores | None:
    """Scores of images that are scaled by what the other folds say; None where a fold cannot be fitted."""
    fold = _folds(predictions)
    values = np.empty(predictions.probabilities.shape)
    for number in np.unique(fold):
        own: npt.NDArray[np.bool_] = fold == number
        try:
            scaling = {"method": method, **fit(predictions.select(~own))}
        except DataError:
            return None
        values[own] = calibrated(predictions.probabilities[own], scaling)
    scores = calibration_scores(predictions.with_probabilities(values), bins=bins)
    return {"nll": scores.nll, "brier": scores.brier, "ece": scores.ece}


def _folds(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Deal the lesions out to the folds, those of each diagnosis in turn: (N,) in 0..FOLDS-1."""
    group, actual = predictions.group, predictions.targets
    first = np.zeros(predictions.lesions, dtype=np.int64)
    first[group[::-1]] = actual[::-1]
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[np.argsort(first, kind="stable")] = np.arange(len(first)) % FOLDS
    return dealt[group]


def fit_ood(
    predictor: Predictor, *, train: "pd.DataFrame", val: "pd.DataFrame", id_pass_rate: float
) -> ood.OodStatistics:
    """Fit the statistics of training images that tell which images are out-of-distribution; see `ood.fit`.

    Args:
        predictor: The members that vote.
        train: Checked frame of training images.
        val: Checked frame of validation images.
        id_pass_rate: Share of the validation images that is not flagged, between 0 and 1.

    Raises:
        DataError: An image cannot be read, or there are too few.
    """
    embedded = {
        part: [ood.Embedded(*each) for each in zip(outputs.logits, outputs.pooled, strict=True)]
        for part, outputs in (
            ("train", predictor.embed_frame(train, label="out-of-distribution: training images")),
            ("val", predictor.embed_frame(val, label="out-of-distribution: validation images")),
        )
    }
    targets = predictor.taxonomy.indices(train["diagnosis"].tolist())
    return ood.fit(embedded["train"], targets, embedded["val"], id_pass_rate=id_pass_rate)
