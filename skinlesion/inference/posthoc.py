"""Calibration, operating points and prediction sets of an ensemble: fitted on validation, evaluated on other images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt

from skinlesion.errors import CheckpointError, DataError
from skinlesion.files import read_json
from skinlesion.inference import conformal, ood, operating_points
from skinlesion.inference.calibration import FITS, METHODS, Calibration, FoldScores, balanced_scores, calibrated
from skinlesion.inference.conformal import prediction_sets
from skinlesion.inference.fitted import MAKE_AGAIN, Fitted
from skinlesion.inference.operating_points import flagged
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.bootstrap import sums_of
from skinlesion.metrics.calibration import calibration_scores, negative_log_likelihood
from skinlesion.metrics.decision import NOT_FLAGGED, FlagMetrics, SetCoverage, flag_metrics, set_coverage
from skinlesion.metrics.estimate import BootstrapConfig

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5  # of lesions, in which scaling is tried on those that it was not fitted to
AUTO = "auto"  # the simplest scaling that is as good as the best, within noise
WORSE = 2.0  # standard errors of the excess from which on a scaling is worse than another
CHOSE = "predictions_val.csv"  # the part that chose the points: they are not measured on it


class FittedDecisions(TypedDict):
    """Operating points and prediction sets as an ensemble keeps them."""

    operating_points: list[operating_points.OperatingPoint]
    conformal: list[conformal.ConformalSets]  # the first is the one in use


def with_calibration(predictions: Predictions, calibration: Mapping[str, Any] | None) -> Predictions:
    """The same images with calibrated probabilities; the predicted diagnoses stay those of the vote."""
    if calibration is None or calibration["method"] == "none":
        return predictions
    ordered = predictions.sorted()
    scaled = ordered.with_probabilities(calibrated(ordered.probabilities, calibration))
    return replace(scaled, scores=ordered.probabilities if ordered.scores is None else ordered.scores)


def with_decision(
    predictions: Predictions, decision: Mapping[str, Any] | None, calibration: Mapping[str, Any] | None
) -> Predictions:
    """The same uncalibrated predictions, decided by a `Decision`: balanced ones are decided after calibration."""
    if decision is None or decision["rule"] == "likeliest":
        return predictions
    values = calibrated(predictions.probabilities, calibration)
    return replace(predictions, scores=balanced_scores(values, list(decision["prior"].values())))


def fit_calibration(predictions: Predictions, *, method: str, bins: int) -> Calibration:
    """Fit all kinds of scaling, and try them on lesions that they were not fitted to.

    The mean of the members' probabilities is scaled, not each member before the vote: members that are calibrated one
    by one need not give a calibrated mean (Wu & Gales, arXiv:2101.05397).

    Args:
        predictions: Uncalibrated predictions for the validation part.
        method: One of `METHODS`; or "auto": the simplest whose negative log-likelihood on left-out lesions is above the
            least by no more than its standard error.
        bins: Number of bins of the calibration errors.

    Returns:
        All fits and their scores in the folds. Where nothing can be fitted the method is "none" and the note says why.
    """
    scaling: Calibration = {"method": "none", "images": len(predictions)}
    try:
        for fit in FITS.values():
            scaling |= fit(predictions.probabilities, predictions.targets)  # type: ignore[typeddict-item]
    except DataError as error:
        return {"method": "none", "images": len(predictions), "note": str(error)}
    folds = compare_scalings({name: cross_fitted(predictions, name) for name in METHODS}, bins=bins)
    equal = [name for name, each in folds.items() if each and each["excess"] <= each["noise"]]
    return {**scaling, "method": equal[0] if method == AUTO else method, "folds": folds}


def cross_fitted(predictions: Predictions, method: str) -> Predictions | None:
    """The same images, scaled by what the other folds of lesions say; None where a fold cannot be fitted."""
    fold, fit = _folds(predictions), FITS[method]
    values = np.empty(predictions.probabilities.shape)
    for number in np.unique(fold):
        own, rest = fold == number, predictions.select(fold != number)
        try:
            scaling = {"method": method, **fit(rest.probabilities, rest.targets)}
        except DataError:
            return None
        values[own] = calibrated(predictions.probabilities[own], scaling)
    return replace(predictions.with_probabilities(values), scores=predictions.probabilities)


def compare_scalings(scaled: Mapping[str, Predictions | None], *, bins: int) -> dict[str, FoldScores | None]:
    """Scores of each scaling, and how far its negative log-likelihood is above the least, paired over images.

    The standard error of that excess is over lesions: images of one are not independent.
    """
    losses = {name: negative_log_likelihood(each) for name, each in scaled.items() if each is not None}
    best = min(losses.values(), key=lambda loss: float(loss.mean()))
    found: dict[str, FoldScores | None] = dict.fromkeys(scaled)
    for name, loss in losses.items():
        each = scaled[name]
        assert each is not None
        scores, gap = calibration_scores(each, bins=bins), loss - best
        sums = sums_of((gap - gap.mean())[:, None], each.group)[:, 0]  # (L,)
        noise = float(np.sqrt(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum()) / len(gap))
        own: FoldScores = {"nll": scores.nll, "brier": scores.brier, "ece": scores.ece}
        found[name] = {**own, "excess": float(gap.mean()), "noise": noise}
    return found


def better_scaling(calibration: Mapping[str, Any]) -> str | None:
    """The scaling of the least log-loss on left-out lesions, where that in use is worse by more than noise."""
    folds = {name: each for name, each in (calibration.get("folds") or {}).items() if each and "excess" in each}
    own = folds.get(calibration["method"])
    if own is None or own["excess"] <= WORSE * own["noise"]:
        return None
    return str(min(folds, key=lambda name: float(folds[name]["excess"])))


def fit_decisions(
    predictions: Predictions,
    *,
    sensitivities: Sequence[float],
    alphas: Sequence[float],
    score: conformal.Score,
    held_out: Predictions | None = None,
) -> FittedDecisions:
    """Choose operating points and the thresholds of prediction sets.

    The sets are fitted on the first image of each lesion: the images of one lesion are not exchangeable with others.

    Args:
        predictions: Calibrated predictions for the validation part.
        sensitivities: That the operating points are to reach.
        alphas: The shares of images whose set may lack the actual diagnosis; the first is the one in use.
        score: "aps" or "raps".
        held_out: The same images, each calibrated by other lesions, on which the sets are fitted: as from
            `cross_fitted`; None: the predictions themselves.
    """
    values, actual, taxonomy = predictions.probabilities, predictions.targets, predictions.taxonomy
    ordered = (predictions if held_out is None else held_out).sorted()
    one = ordered.select(np.unique(ordered.group, return_index=True)[1])
    return {
        "operating_points": operating_points.fit(values, actual, sensitivities=sensitivities, taxonomy=taxonomy),
        "conformal": [
            conformal.fit(one.probabilities, one.targets, alpha=alpha, method=score, taxonomy=taxonomy)
            for alpha in alphas
        ],
    }


def _folds(predictions: Predictions) -> npt.NDArray[np.int64]:
    """Deal the lesions out to the folds, those of each diagnosis in turn: (N,) in 0..FOLDS-1."""
    group, actual = predictions.group, predictions.targets
    first = np.zeros(predictions.groups, dtype=np.int64)
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
                "pooled": each.get("pooled", []),
                "part": each.get("part", "val"),
                "wanted": 1 - each["alpha"],
                "short": [[short.fact, short.group] for short in found.shortfalls(1 - each["alpha"])],
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
