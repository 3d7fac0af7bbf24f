"""Calibration, operating points and prediction sets of an ensemble: fitted on validation, evaluated on other images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from skinlesion.errors import CheckpointError, DataError
from skinlesion.files import read_json
from skinlesion.inference import conformal, ood, operating_points
from skinlesion.inference.calibration import Calibration, FoldScores, calibrated, fit_temperature, fit_vector
from skinlesion.inference.conformal import prediction_sets
from skinlesion.inference.fitted import MAKE_AGAIN, Fitted
from skinlesion.inference.operating_points import flagged
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.calibration import calibration_scores
from skinlesion.metrics.decision import NOT_FLAGGED, FlagMetrics, SetCoverage, flag_metrics, set_coverage
from skinlesion.metrics.estimate import BootstrapConfig

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5  # of lesions, in which scaling is tried on those that it was not fitted to
CHOSE = "predictions_val.csv"  # the part that chose the points: they are not measured on it


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
    folds = {name: _cross_validated(predictions, name, fit, bins=bins) for name, fit in fits.items()}
    scaling: Calibration = {"method": method, "temperature": temperature, "vector": vector, "images": len(predictions)}
    return {**scaling, "folds": folds}


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
    """Fit out-of-distribution detection to training images; see `ood.fit`.

    Args:
        predictor: The members that vote.
        train: Checked frame of training images.
        val: Checked frame of validation images.
        id_pass_rate: Share of the validation images that is not flagged, between 0 and 1.

    Raises:
        DataError: An image cannot be read, or there are too few.
    """

    def embedded(frame: "pd.DataFrame", images: str) -> list[ood.Embedded]:
        outputs = predictor.embed_frame(frame, label=f"out-of-distribution: {images} images")
        return [ood.Embedded(*each) for each in zip(outputs.logits, outputs.pooled, strict=True)]

    targets = predictor.taxonomy.indices(train["diagnosis"].tolist())
    return ood.fit(embedded(train, "training"), targets, embedded(val, "validation"), id_pass_rate=id_pass_rate)


@dataclass(frozen=True)
class Decisions:
    """Operating points and prediction sets with their metrics on other images; empty: the ensemble has none.

    Attributes:
        operating_points: Each with the prevalence for which predictive values are given too (None: not given), and its
            metrics (None: no threshold could be chosen).
        conformal: Each with its coverage; that of the first, which is in use, by group too.
    """

    operating_points: list[tuple[Mapping[str, Any], float | None, FlagMetrics | None]]
    conformal: list[tuple[Mapping[str, Any], SetCoverage]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with a note in place of what the ensemble has none of."""
        points = [
            {**point, **NOT_FLAGGED} if found is None else {**point, "prevalence": prevalence, **found.to_dict()}
            for point, prevalence, found in self.operating_points
        ]
        sets = [
            {
                **{key: each[key] for key in ("method", "alpha", "by_class", "thresholds", "images", "always")},
                "wanted": 1 - each["alpha"],
                **found.to_dict(),
            }
            for each, found in self.conformal
        ]
        missing = "not computable: the ensemble has no {}; make it again"
        return {
            "operating_points": points or {"note": missing.format("operating points")},
            "conformal": sets or {"note": missing.format("prediction sets")},
        }


def evaluate_decisions(
    predictions: Predictions,
    config: BootstrapConfig,
    *,
    points: Sequence[Mapping[str, Any]] | None,
    sets: Sequence[Mapping[str, Any]] | None,
    groups: Mapping[str, Sequence[str]] | None = None,
    prevalence: Mapping[str, float | None] | None = None,
) -> Decisions:
    """Measure operating points and prediction sets.

    Args:
        predictions: With known actual diagnoses, calibrated as those that chose the thresholds.
        config: Settings of the intervals.
        points: Each an `OperatingPoint`; None: the ensemble has none.
        sets: Each a `ConformalSets`, likewise.
        groups: For each fact the group of each image, as from `summary.groups_of`; None: not known.
        prevalence: By target, the share where the model would be used, or None.
    """

    def measured(point: Mapping[str, Any]) -> tuple[Mapping[str, Any], float | None, FlagMetrics | None]:
        share = (prevalence or {}).get(point["target"])
        if point["threshold"] is None:
            return point, share, None
        chosen = flagged(predictions.probabilities, point, taxonomy=predictions.taxonomy)
        return point, share, flag_metrics(predictions, chosen, point["target"], config, prevalence=share)

    values = predictions.probabilities
    return Decisions(
        operating_points=[measured(point) for point in points or ()],
        conformal=[
            (
                each,
                set_coverage(predictions, prediction_sets(values, each), config, groups=groups if not place else None),
            )
            for place, each in enumerate(sets or ())
        ],
    )


@dataclass(frozen=True)
class PooledPoint:
    """An operating point of several ensembles, measured on all their parts together.

    Attributes:
        target: A code, or a category such as "malignant".
        sensitivity: The wanted one.
        thresholds: Of each ensemble; None where it could not be chosen.
        found: None where a threshold is missing.
    """

    target: str
    sensitivity: float
    thresholds: list[float | None]
    found: FlagMetrics | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        about = {"target": self.target, "sensitivity": self.sensitivity, "thresholds": self.thresholds}
        return {**about, **(NOT_FLAGGED if self.found is None else self.found.to_dict())}


def pooled_points(paths: Sequence[Path], config: BootstrapConfig) -> list[PooledPoint]:
    """Flag the images of each table at the thresholds of the ensemble beside it, and measure all flags together.

    A threshold is never that of another fold: each was chosen on the validation part that goes with the table.

    Args:
        paths: Predictions tables (uncalibrated, as `ensemble` writes them) of different images.
        config: Settings of the intervals.

    Returns:
        One for each target and wanted sensitivity. Empty where a table has no ensemble.json beside it, is the part that
        chose the thresholds, or where an ensemble has no operating points.

    Raises:
        CheckpointError: An ensemble.json cannot be read.
        DataError: The ensembles have different targets or wanted sensitivities.
    """
    beside = [path.parent / "ensemble.json" for path in paths]
    if any(path.name == CHOSE for path in paths) or not all(path.is_file() for path in beside):
        return []
    found = [read_json(path, Fitted, error=CheckpointError, advice=MAKE_AGAIN) for path in beside]
    ensembles = [(each.calibration, each.operating_points or []) for each in found]
    wanted = [[(point["target"], point["sensitivity"]) for point in points] for _, points in ensembles]
    for path, each in zip(beside, wanted, strict=True):
        if each != wanted[0]:
            raise DataError(f"{path}: operating points other than those of {beside[0]}; give both the same ones")
    pairs = zip(paths, ensembles, strict=True)
    tables = [with_calibration(Predictions.read(path), calibration) for path, (calibration, _) in pairs]

    def measured(points: Sequence[Mapping[str, Any]]) -> PooledPoint:
        thresholds, found, target = [point["threshold"] for point in points], None, points[0]["target"]
        if None not in thresholds:
            pairs = zip(tables, points, strict=True)
            flags = [flagged(table.probabilities, point, taxonomy=table.taxonomy) for table, point in pairs]
            found = flag_metrics(Predictions.concatenate(tables), np.concatenate(flags), target, config)
        return PooledPoint(target, points[0]["sensitivity"], thresholds, found)

    return [measured(points) for points in zip(*(points for _, points in ensembles), strict=True)]
