"""Evaluate the operating points and prediction sets of an ensemble on images that did not choose them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.conformal import prediction_sets
from skinlesion.inference.operating_points import flagged
from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.decision import NOT_FLAGGED, FlagMetrics, SetCoverage, flag_metrics, set_coverage
from skinlesion.metrics.estimate import BootstrapConfig

CHOSE = "predictions_val.csv"  # the part that chose the points: they are not measured on it


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
        groups: For each fact the group of each image, as from `subgroups.groups_of`; None: not known.
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
    ensembles = [_read_posthoc(path) for path in beside]
    wanted = [[(point["target"], point["sensitivity"]) for point in each["operating_points"]] for each in ensembles]
    for path, each in zip(beside, wanted, strict=True):
        if each != wanted[0]:
            raise DataError(f"{path}: operating points other than those of {beside[0]}; give both the same ones")
    pairs = zip(paths, ensembles, strict=True)
    tables = [with_calibration(Predictions.read(path), each["calibration"]) for path, each in pairs]
    columns = zip(*(each["operating_points"] for each in ensembles), strict=True)
    return [_pooled(tables, points, config) for points in columns]


def _pooled(tables: Sequence[Predictions], points: Sequence[Mapping[str, Any]], config: BootstrapConfig) -> PooledPoint:
    thresholds, found, target = [point["threshold"] for point in points], None, points[0]["target"]
    if None not in thresholds:
        pairs = zip(tables, points, strict=True)
        flags = [flagged(table.probabilities, point, taxonomy=table.taxonomy) for table, point in pairs]
        found = flag_metrics(Predictions.concatenate(tables), np.concatenate(flags), target, config)
    return PooledPoint(target, points[0]["sensitivity"], thresholds, found)


def _read_posthoc(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return {"calibration": about.get("calibration"), "operating_points": about.get("operating_points") or []}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable ensemble.json ({error}); make it with `ensemble`") from error
