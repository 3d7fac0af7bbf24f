"""Results of a report: performance, calibration, rejection, decisions, prediction sets and subgroups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.posthoc import Decisions, evaluate_decisions
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import CalibrationScores, calibration_scores
from skinlesion.metrics.classification import confusion_of
from skinlesion.metrics.compare import EnsembleMetrics, ensemble_metrics
from skinlesion.metrics.decision import net_benefit
from skinlesion.metrics.estimate import BootstrapConfig, Estimates
from skinlesion.metrics.selective import KeptShare, aurc, confidence_score, risk_at_share, risk_coverage
from skinlesion.metrics.summary import Subgroups, groups_of, subgroups
from skinlesion.studies.report.sources import Sources
from skinlesion.taxonomy import CODES, TARGETS
from skinlesion.terminal import track

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 36))  # of the decision curve, 0.02 to 0.7
KEPT = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # shares of images in the table of the reject option
NO_METADATA = "not computable: no metadata table"


@dataclass(frozen=True)
class CalibrationResult:
    """Calibration of the ensemble and its scores before and after, by part."""

    fitted: dict[str, Any] | None  # as in ensemble.json; None: the ensemble is not calibrated
    before: dict[str, CalibrationScores]
    after: dict[str, CalibrationScores]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        scores = {part: {"before": each, "after": self.after[part]} for part, each in self.before.items()}
        return {"fitted": self.fitted, **scores}


@dataclass(frozen=True)
class RejectionResult:
    """Reject option on the test part by confidence score."""

    areas: Estimates  # area under the risk-coverage curve by score; also `best` and `chance`
    kept: dict[str, list[KeptShare]]  # at each share of `KEPT`
    curves: dict[str, pd.DataFrame]  # threshold, coverage, risk

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        curves = {name: curve.to_dict("list") for name, curve in self.curves.items()}
        return {"areas": self.areas, "kept": self.kept, "curves": curves}


@dataclass(frozen=True)
class PartCounts:
    """Numbers of images and lesions of one part of the split."""

    images: int
    lesions: int
    by_diagnosis: dict[str, int]  # number of images by code
    mean_confidence: float  # mean probability of the predicted diagnosis, before calibration


@dataclass(frozen=True)
class Results:
    """All numbers of a report."""

    performance: EnsembleMetrics  # of the ensemble and its members
    calibration: CalibrationResult
    rejection: RejectionResult
    decisions: Decisions  # operating points and prediction sets on the test part
    net_benefit: dict[str, pd.DataFrame | None]  # by target; None where the test part has no image of the target
    subgroups: Subgroups | None  # of the test part; None without a metadata table
    confusion: npt.NDArray[np.int64]  # (K, K) images of the test part by actual (row) and predicted diagnosis
    counts: dict[str, PartCounts]  # by part

    @property
    def test(self) -> Estimates:
        """Metrics of the ensemble on the test part."""
        return self.performance.vote["test"].metrics

    def to_dict(self) -> dict[str, Any]:
        """The numbers in report.json; a note takes the place of what is not computable."""
        decisions = self.decisions.to_dict()
        return {
            "performance": self.performance,
            "calibration": self.calibration,
            "rejection": self.rejection,
            "operating_points": decisions["operating_points"],
            "net_benefit": {
                target: {"note": f"not computable: no image of {target}"} if curve is None else _columns(curve)
                for target, curve in self.net_benefit.items()
            },
            "conformal": decisions["conformal"],
            "subgroups": {"note": NO_METADATA} if self.subgroups is None else self.subgroups,
            "confusion": {"codes": list(CODES), "counts": self.confusion.tolist()},
            "counts": self.counts,
        }


def compute_results(
    sources: Sources, config: BootstrapConfig, *, prevalence: Mapping[str, float | None], bins: int
) -> Results:
    """Compute all numbers of a report.

    Args:
        sources: Sources of the report.
        config: Bootstrap over lesions.
        prevalence: Share of each target where the model would be used, 0 to 1, or None.
        bins: Number of bins of the calibration errors.

    Raises:
        SkinlesionError: The facts belong to other images.
    """
    vote, calibrated, about = sources.vote, sources.calibrated, sources.about
    test, scaled = vote["test"], calibrated["test"]
    groups = None if sources.facts is None else groups_of(test, sources.facts)

    def scores(parts: Mapping[str, Predictions]) -> dict[str, CalibrationScores]:
        return {part: calibration_scores(each, bins=bins) for part, each in parts.items()}

    steps: dict[str, Callable[[], Any]] = {
        "performance": lambda: ensemble_metrics(
            vote, calibrated, sources.members, config, chosen=sources.chosen, bins=bins
        ),
        "calibration": lambda: CalibrationResult(about.get("calibration"), scores(vote), scores(calibrated)),
        "rejection": lambda: _rejection(sources, scaled, config),
        "decisions": lambda: evaluate_decisions(
            scaled,
            config,
            points=about.get("operating_points"),
            sets=about.get("conformal"),
            groups=groups,
            prevalence=prevalence,
        ),
        "net_benefit": lambda: {target: _net_benefit(scaled, target, config) for target in TARGETS},
        "subgroups": lambda: None if groups is None else subgroups(test, groups, config, bins=bins),
        "confusion": lambda: confusion_of(test),
        "counts": lambda: {part: _counts(each) for part, each in vote.items()},
    }
    return Results(**{name: step() for name, step in track(steps.items(), "computing results", len(steps))})


def _net_benefit(predictions: Predictions, target: str, config: BootstrapConfig) -> pd.DataFrame | None:
    has_target = predictions.taxonomy.mask(target)[predictions.targets].any()
    return net_benefit(predictions, target, THRESHOLDS, config) if has_target else None


def _rejection(sources: Sources, scaled: Predictions, config: BootstrapConfig) -> RejectionResult:
    chosen = [sources.members[name]["test"] for name in sources.chosen] if sources.members else []
    scores = confidence_score(scaled, chosen)
    return RejectionResult(
        areas=aurc(scaled, scores, config),
        kept={name: [risk_at_share(scaled, each, share, config) for share in KEPT] for name, each in scores.items()},
        curves={name: risk_coverage(scaled, each) for name, each in scores.items()},
    )


def _counts(predictions: Predictions) -> PartCounts:
    counts = np.bincount(predictions.targets, minlength=len(CODES)).tolist()
    confidence = float(np.mean(predictions.probabilities.max(axis=1)))
    return PartCounts(len(predictions), predictions.lesions, dict(zip(CODES, counts, strict=True)), confidence)


def _columns(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    return {str(name): [None if pd.isna(value) else float(value) for value in frame[name]] for name in frame}
