"""Operating points of several ensembles on parts of their own, such as the test parts of all folds, judged together."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.inference.predictions import probabilities, read_predictions
from skinlesion.metrics.decision import flagged, judge_flags

CHOSE = "predictions_val.csv"  # the part that chose the points: it does not judge them


def pooled_points(paths: Sequence[Path], **settings: Any) -> list[dict[str, Any]]:
    """Flag the images of each table at the thresholds of the ensemble beside it, and judge all flags together.

    A threshold is never that of another fold: each was chosen on the validation part that goes with the table.

    Args:
        paths: Predictions tables (uncalibrated, as `ensemble` writes them) of different images.
        **settings: `resamples`, `seed`, `level` and `method` of the intervals.

    Returns:
        For each target and wanted sensitivity that all ensembles have `target`, `sensitivity` (wanted), `thresholds`
        (of each table), `counts` and `numbers`, as of `judge_points`. Empty where a table has no ensemble.json beside
        it, is the part that chose the thresholds, or where an ensemble has no operating points.

    Raises:
        CheckpointError: An ensemble.json cannot be read.
        DataError: The ensembles have different targets or wanted sensitivities.
    """
    beside = [path.parent / "ensemble.json" for path in paths]
    if any(path.name == CHOSE for path in paths) or not all(path.is_file() for path in beside):
        return []
    ensembles = [_read(path) for path in beside]
    wanted = [[(point["target"], point["sensitivity"]) for point in each["operating_points"]] for each in ensembles]
    for path, each in zip(beside, wanted, strict=True):
        if each != wanted[0]:
            raise DataError(f"{path}: operating points other than those of {beside[0]}; give both the same ones")
    tables = [
        with_calibration(read_predictions(path), each["calibration"])
        for path, each in zip(paths, ensembles, strict=True)
    ]
    pooled = pd.concat(tables, ignore_index=True)
    return [
        _judged(pooled, tables, [each["operating_points"][place] for each in ensembles], settings)
        for place in range(len(wanted[0]))
    ]


def _judged(
    pooled: pd.DataFrame, tables: Sequence[pd.DataFrame], points: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    about = {
        "target": points[0]["target"],
        "sensitivity": points[0]["sensitivity"],
        "thresholds": [point["threshold"] for point in points],
    }
    if None in about["thresholds"]:
        return {**about, "counts": None, "numbers": {}}
    raised = [flagged(probabilities(table), point) for table, point in zip(tables, points, strict=True)]
    return {**about, **judge_flags(pooled, np.concatenate(raised), about["target"], **settings)}


def _read(path: Path) -> dict[str, Any]:
    try:
        about = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
        return {"calibration": about.get("calibration"), "operating_points": about.get("operating_points") or []}
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable ensemble.json ({error}); make it with `ensemble`") from error
