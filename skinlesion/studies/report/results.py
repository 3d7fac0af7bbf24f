"""All numbers of a report, as plain data: performance, calibration, decisions, prediction sets, subgroups."""

from typing import Any

import numpy as np
import pandas as pd

from skinlesion.inference.member_metrics import measure
from skinlesion.inference.posthoc_eval import evaluate_operating_points, evaluate_prediction_sets
from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.inference.predictions import predicted_targets, probabilities, targets
from skinlesion.metrics.calibration import calibration_scores
from skinlesion.metrics.classification import confusions
from skinlesion.metrics.decision import net_benefit
from skinlesion.metrics.selective import areas, at_share, confidence_score, risk_coverage
from skinlesion.metrics.subgroups import groups_of, subgroups
from skinlesion.metrics.summary import judged
from skinlesion.progress import track
from skinlesion.studies.report.sources import PARTS, Sources
from skinlesion.taxonomy import CODES, TARGETS, is_target

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 36))  # of the decision curve, 0.02 to 0.7
KEPT = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # shares of images at which the reject option is told as a table


def gather(
    sources: Sources, *, prevalence: dict[str, float | None], bins: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Compute everything that a report says of an ensemble.

    Args:
        sources: As from `read_sources`.
        prevalence: By target, the share where the model would be used, or None.
        bins: Of calibration errors and diagrams.
        settings: `resamples`, `seed`, `level` and `method` of the intervals.

    Returns:
        Plain data: `performance` (as from `members.measure`, or `judged` alone), `calibration`, `rejection`,
        `operating_points`, `net_benefit`, `conformal`, `subgroups`, `confusion`, `counts`; where a part cannot be
        computed it is {"note": why}.

    Raises:
        SkinlesionError: The facts are of other images.
    """
    calibration = sources.about.get("calibration")
    test = sources.tables["test"]
    scaled = with_calibration(test, calibration)
    groups = None if sources.facts is None else groups_of(test, sources.facts)
    steps: dict[str, Any] = {
        "performance": lambda: _performance(sources, calibration, {**settings, "bins": bins}),
        "calibration": lambda: _calibration(sources, calibration, bins=bins),
        "rejection": lambda: _rejection(sources, scaled, settings),
        "operating_points": lambda: evaluate_operating_points(
            scaled, sources.about.get("operating_points"), settings=settings, prevalence=prevalence
        ),
        "net_benefit": lambda: _net_benefit(scaled, settings),
        "conformal": lambda: evaluate_prediction_sets(
            scaled, sources.about.get("conformal"), groups=groups, settings=settings
        ),
        "subgroups": lambda: (
            {"note": "not computable: no metadata table"}
            if groups is None
            else subgroups(test, groups, **settings, bins=bins)
        ),
        "confusion": lambda: _confusion(test),
        "counts": lambda: {part: _counts(table) for part, table in sources.tables.items()},
    }
    return {name: step() for name, step in track(steps.items(), "judging", len(steps))}


def _performance(sources: Sources, calibration: dict[str, Any] | None, settings: dict[str, Any]) -> dict[str, Any]:
    if sources.members:
        tables = {part: [each[part] for each in sources.members.values()] for part in PARTS}
        return measure(tables, sources.about["chosen"], sources.names, calibration, **settings)
    found: dict[str, Any] = {"chosen": sources.chosen, "level": settings["level"], "interval": settings["method"]}
    for part, table in sources.tables.items():
        found[part] = judged(table, **settings)
    scaled = {part: judged(with_calibration(table, calibration), **settings) for part, table in sources.tables.items()}
    return {**found, "calibrated": scaled}


def _calibration(sources: Sources, calibration: dict[str, Any] | None, *, bins: int) -> dict[str, Any]:
    """Scores before and after, of both parts; the numbers with intervals stand under `performance`."""
    scores = {
        part: {
            "before": calibration_scores(table, bins=bins),
            "after": calibration_scores(with_calibration(table, calibration), bins=bins),
        }
        for part, table in sources.tables.items()
    }
    return {"fitted": calibration, **scores}


def _rejection(sources: Sources, scaled: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    voters = [sources.members[name]["test"] for name in sources.chosen] if sources.members else []
    sure = confidence_score(scaled, voters)
    curves = {name: risk_coverage(scaled, values) for name, values in sure.items()}
    return {
        "areas": areas(scaled, sure, **settings),
        "kept": {
            name: [at_share(scaled, values, share, **settings) for share in KEPT] for name, values in sure.items()
        },
        "curves": {name: curve.to_dict("list") for name, curve in curves.items()},
    }


def _net_benefit(scaled: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for target in TARGETS:
        if not is_target(targets(scaled), target).any():
            found[target] = {"note": f"not computable: no image of {target}"}
            continue
        frame = net_benefit(scaled, target, thresholds=THRESHOLDS, **settings)
        found[target] = {name: [None if pd.isna(value) else float(value) for value in frame[name]] for name in frame}
    return found


def _confusion(table: pd.DataFrame) -> dict[str, Any]:
    counts = confusions(targets(table), predicted_targets(table))
    return {"codes": list(CODES), "counts": counts.tolist()}


def _counts(table: pd.DataFrame) -> dict[str, Any]:
    actual = targets(table)
    return {
        "images": len(table),
        "lesions": int(table["lesion_id"].where(table["lesion_id"] != "", table["image_id"]).nunique()),
        "by_diagnosis": {code: int((actual == k).sum()) for k, code in enumerate(CODES)},
        "mean_confidence": float(np.mean(probabilities(table).max(axis=1))),
    }
