"""What an ensemble learned on validation, applied to a table that it did not learn from: decisions and sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from skinlesion.inference.coverage import coverage
from skinlesion.metrics.decision import judge_points

_OF_SETS = ("method", "alpha", "by_class", "thresholds", "images")


def evaluate_operating_points(
    table: pd.DataFrame,
    points: Sequence[dict[str, Any]] | None,
    *,
    settings: Mapping[str, Any],
    prevalence: Mapping[str, float | None] | None = None,
) -> list[dict[str, Any]] | dict[str, str]:
    """Judge the operating points of all targets.

    Args:
        table: A predictions table with known actual diagnoses, calibrated as the one that chose the points.
        points: As from `operating_points.fit`; None: the ensemble has none.
        settings: `resamples`, `seed`, `level` and `method` of the intervals.
        prevalence: By target, the share where the model would be used, or None.

    Returns:
        As from `judge_points`, or a `note` that says why not.
    """
    if not points:
        return {"note": "not computable: the ensemble has no operating points; make it again"}
    shares = prevalence or {}
    return [
        judged
        for target in dict.fromkeys(point["target"] for point in points)
        for judged in judge_points(
            table,
            [point for point in points if point["target"] == target],
            **settings,
            prevalence=shares.get(target),
        )
    ]


def evaluate_prediction_sets(
    table: pd.DataFrame,
    fitted: Sequence[dict[str, Any]] | None,
    *,
    groups: Mapping[str, Sequence[str]] | None,
    settings: Mapping[str, Any],
) -> list[dict[str, Any]] | dict[str, str]:
    """Judge the prediction sets of each risk; those of the first one, which is in use, by group too.

    Args:
        table: A predictions table with known actual diagnoses, calibrated as the one that chose the thresholds.
        fitted: As from `conformal.fit`, one a risk; None: the ensemble has none.
        groups: For each fact the group of each image, as from `subgroups.groups_of`; None: not known.
        settings: `resamples`, `seed`, `level` and `method` of the intervals.

    Returns:
        For each risk the settings of the sets and what `coverage` gives, or a `note` that says why not.
    """
    if not fitted:
        return {"note": "not computable: the ensemble has no prediction sets; make it again"}
    return [
        {
            **{key: each[key] for key in _OF_SETS},
            **coverage(table, each, **settings, groups=None if place else groups),
        }
        for place, each in enumerate(fitted)
    ]
