"""All numbers of a report, as plain data: performance, calibration, decisions, prediction sets, subgroups."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.inference.posthoc_eval import Decisions, evaluate_decisions
from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import calibration_scores
from skinlesion.metrics.classification import confusion_of
from skinlesion.metrics.compare import EnsembleMetrics, ensemble_metrics
from skinlesion.metrics.decision import net_benefit
from skinlesion.metrics.estimate import BootstrapConfig, Estimates, estimates_to_dict
from skinlesion.metrics.selective import KeptShare, aurc, confidence_score, risk_at_share, risk_coverage
from skinlesion.metrics.subgroups import Subgroups, groups_of, subgroups
from skinlesion.progress import track
from skinlesion.studies.report.sources import PARTS, Sources
from skinlesion.taxonomy import TARGETS

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 36))  # of the decision curve, 0.02 to 0.7
KEPT = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # shares of images at which the reject option is reported


@dataclass(frozen=True)
class Rejection:
    """The reject option by confidence score: areas, risks at the shares kept, and risk-coverage curves."""

    areas: Estimates
    kept: dict[str, list[KeptShare]]
    curves: dict[str, pd.DataFrame]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "areas": estimates_to_dict(self.areas),
            "kept": {name: [share.to_dict() for share in each] for name, each in self.kept.items()},
            "curves": {name: curve.to_dict("list") for name, curve in self.curves.items()},
        }


@dataclass(frozen=True)
class Results:
    """All numbers of a report; what cannot be computed is None, or {"note": why} in plain data."""

    performance: EnsembleMetrics
    calibration: dict[str, Any]
    rejection: Rejection
    decisions: Decisions
    net_benefit: dict[str, pd.DataFrame | None]  # by target
    subgroups: Subgroups | None
    confusion: dict[str, Any]
    counts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        decisions = self.decisions.to_dict()
        groups = self.subgroups
        return {
            "performance": self.performance.to_dict(),
            "calibration": self.calibration,
            "rejection": self.rejection.to_dict(),
            "operating_points": decisions["operating_points"],
            "net_benefit": {target: _benefit(target, frame) for target, frame in self.net_benefit.items()},
            "conformal": decisions["conformal"],
            "subgroups": (
                {"note": "not computable: no metadata table"}
                if groups is None
                else {fact: {name: each.to_dict() for name, each in parts.items()} for fact, parts in groups.items()}
            ),
            "confusion": self.confusion,
            "counts": self.counts,
        }


def gather(sources: Sources, *, prevalence: dict[str, float | None], bins: int, config: BootstrapConfig) -> Results:
    """Compute all numbers of a report of an ensemble.

    Args:
        sources: As from `read_sources`.
        prevalence: By target, the share where the model would be used, or None.
        bins: Of calibration errors and diagrams.
        config: How intervals are made.

    Raises:
        SkinlesionError: The facts are of other images.
    """
    calibration, test = sources.about.get("calibration"), sources.tables["test"]
    scaled = with_calibration(test, calibration)
    groups = None if sources.facts is None else groups_of(test, sources.facts)
    steps: dict[str, Any] = {
        "performance": lambda: _performance(sources, calibration, config, bins=bins),
        "calibration": lambda: _calibration(sources, calibration, bins=bins),
        "rejection": lambda: _rejection(sources, scaled, config),
        "decisions": lambda: evaluate_decisions(
            scaled,
            config,
            points=sources.about.get("operating_points"),
            sets=sources.about.get("conformal"),
            groups=groups,
            prevalence=prevalence,
        ),
        "net_benefit": lambda: {target: _net_benefit(scaled, target, config) for target in TARGETS},
        "subgroups": lambda: None if groups is None else subgroups(test, groups, config, bins=bins),
        "confusion": lambda: {"codes": list(test.taxonomy.codes), "counts": confusion_of(test).tolist()},
        "counts": lambda: {part: _counts(table) for part, table in sources.tables.items()},
    }
    return Results(**{name: step() for name, step in track(steps.items(), "judging", len(steps))})


def _performance(
    sources: Sources, calibration: dict[str, Any] | None, config: BootstrapConfig, *, bins: int
) -> EnsembleMetrics:
    scaled = {part: with_calibration(table, calibration) for part, table in sources.tables.items()}
    chosen, members = sources.chosen, sources.members
    if members:  # the vote anew, not the table beside it, which was rounded
        vote = {part: Predictions.soft_vote([members[name][part] for name in chosen]) for part in PARTS}
        scaled = {part: with_calibration(table, calibration) for part, table in vote.items()}
        return ensemble_metrics(vote, scaled, members, config, chosen=chosen, bins=bins)
    return ensemble_metrics(sources.tables, scaled, {}, config, chosen=chosen, bins=bins)


def _calibration(sources: Sources, calibration: dict[str, Any] | None, *, bins: int) -> dict[str, Any]:
    """Scores before and after, of both parts; the numbers with intervals stand under `performance`."""
    scores = {
        part: {
            "before": calibration_scores(table, bins=bins).to_dict(),
            "after": calibration_scores(with_calibration(table, calibration), bins=bins).to_dict(),
        }
        for part, table in sources.tables.items()
    }
    return {"fitted": calibration, **scores}


def _rejection(sources: Sources, scaled: Predictions, config: BootstrapConfig) -> Rejection:
    members = [sources.members[name]["test"] for name in sources.chosen] if sources.members else []
    scores = confidence_score(scaled, members)
    return Rejection(
        areas=aurc(scaled, scores, config),
        kept={name: [risk_at_share(scaled, each, share, config) for share in KEPT] for name, each in scores.items()},
        curves={name: risk_coverage(scaled, each) for name, each in scores.items()},
    )


def _net_benefit(scaled: Predictions, target: str, config: BootstrapConfig) -> pd.DataFrame | None:
    if not scaled.taxonomy.mask(target)[scaled.targets].any():
        return None
    return net_benefit(scaled, target, THRESHOLDS, config)


def _benefit(target: str, frame: pd.DataFrame | None) -> dict[str, Any]:
    if frame is None:
        return {"note": f"not computable: no image of {target}"}
    return {name: [None if pd.isna(value) else float(value) for value in frame[name]] for name in map(str, frame)}


def _counts(table: Predictions) -> dict[str, Any]:
    return {
        "images": len(table),
        "lesions": table.lesions,
        "by_diagnosis": {code: int((table.actual == code).sum()) for code in table.taxonomy.codes},
        "mean_confidence": float(np.mean(table.probabilities.max(axis=1))),
    }
