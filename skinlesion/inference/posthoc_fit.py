"""What an ensemble learns from its validation part after the vote: calibration, operating points, prediction sets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.errors import DataError
from skinlesion.inference import conformal, operating_points
from skinlesion.inference.calibration import calibrated, fit_temperature, fit_vector
from skinlesion.inference.predictions import build_table, probabilities, targets
from skinlesion.metrics.bootstrap import lesion_index
from skinlesion.metrics.calibration import calibration_scores
from skinlesion.metrics.classification import Floats, Integers

FOLDS = 5  # of lesions, in which scaling is tried on what it was not fitted to


def with_calibration(table: pd.DataFrame, calibration: dict[str, Any] | None) -> pd.DataFrame:
    """The predictions table of the same images with calibrated probabilities."""
    return build_table(
        table["image_id"].tolist(),
        table["lesion_id"].tolist(),
        probabilities=calibrated(probabilities(table), calibration),
        actual=table["actual"].tolist(),
    )


def fit_calibration(table: pd.DataFrame, *, method: str, bins: int) -> dict[str, Any]:
    """Fit both kinds of scaling, and try them on lesions that they were not fitted to.

    The mean of the members' probabilities is scaled, not each member before the vote: members that are calibrated one
    by one need not give a calibrated mean (Wu & Gales, arXiv:2101.05397), and one temperature for the mean changes
    no prediction, so that the vote that was chosen stays the vote.

    Args:
        table: The predictions of the validation part, uncalibrated.
        method: "temperature", "vector" or "none": which is to be used.
        bins: Of the calibration errors.

    Returns:
        Plain data: `method`, `temperature`, `vector` (`weight` and `bias`), `images`, and `folds`: for "none",
        "temperature" and "vector" `nll`, `brier` and `ece` of all images, each scaled by what four fifths of the
        other lesions say. Where nothing can be fitted the method is "none" and `note` says why.
    """
    fits: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
        "none": lambda part: {},
        "temperature": lambda part: {"temperature": fit_temperature(probabilities(part), targets(part))},
        "vector": lambda part: {"vector": fit_vector(probabilities(part), targets(part))},
    }
    try:
        found = {**fits["temperature"](table), **fits["vector"](table)}
    except DataError as error:
        return {"method": "none", "images": len(table), "note": str(error)}
    tried = {name: _tried(table, {"method": name}, fit, bins=bins) for name, fit in fits.items()}
    return {"method": method, **found, "images": len(table), "folds": tried}


def worsens_nll(calibration: dict[str, Any]) -> bool:
    """Whether the method in use made the likelihood of left-out lesions worse than no scaling."""
    folds = calibration.get("folds") or {}
    own, without = folds.get(calibration["method"]), folds.get("none")
    return bool(own and without and own["nll"] > without["nll"] + 1e-9)


def fit_decisions(
    table: pd.DataFrame, *, sensitivities: Sequence[float], alphas: Sequence[float], score: conformal.Score
) -> dict[str, Any]:
    """Choose operating points and the thresholds of prediction sets.

    Args:
        table: The calibrated predictions of the validation part.
        sensitivities: That the operating points are to reach.
        alphas: The shares of images whose set may lack the actual diagnosis; the first is the one in use.
        score: "aps" or "raps".

    Returns:
        `operating_points`, a list as from `operating_points.fit`, and `conformal`, a list as from `conformal.fit`. The
        sets are fitted on the first image of each lesion: those of one lesion are not exchangeable with others.
    """
    one = table.iloc[_first_images(table)]
    sets = [conformal.fit(probabilities(one), targets(one), alpha=alpha, method=score) for alpha in alphas]
    points = operating_points.fit(probabilities(table), targets(table), sensitivities=sensitivities)
    return {"operating_points": points, "conformal": sets}


def _first_images(table: pd.DataFrame) -> Integers:
    """Positions of the first image of each lesion, in the order of image_id."""
    order = table["image_id"].argsort(kind="stable").to_numpy()
    _, firsts = np.unique(lesion_index(table)[order], return_index=True)
    return np.asarray(order[firsts], dtype=np.int64)


def _tried(
    table: pd.DataFrame, about: dict[str, Any], fit: Callable[[pd.DataFrame], dict[str, Any]], *, bins: int
) -> dict[str, float] | None:
    """Scores of images that are scaled by what the other folds say; None where a fold cannot be fitted."""
    fold = _folds(table)
    values: Floats = np.empty(probabilities(table).shape)
    for number in np.unique(fold):
        own: npt.NDArray[np.bool_] = fold == number
        try:
            values[own] = calibrated(probabilities(table[own]), {**about, **fit(table[~own])})
        except DataError:
            return None
    scaled = build_table(
        table["image_id"].tolist(), [""] * len(table), probabilities=values, actual=table["actual"].tolist()
    )
    scores = calibration_scores(scaled, bins=bins)
    return {name: float(scores[name]) for name in ("nll", "brier", "ece")}


def _folds(table: pd.DataFrame) -> Integers:
    """Deal the lesions out to the folds, those of each diagnosis in turn: (N,) in 0..FOLDS-1."""
    index, actual = lesion_index(table), targets(table)
    first = np.zeros(int(index.max()) + 1, dtype=np.int64)
    first[index[::-1]] = actual[::-1]
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[np.argsort(first, kind="stable")] = np.arange(len(first)) % FOLDS
    return dealt[index]
