"""Results of a report: performance, calibration, rejection, decisions, prediction sets and subgroups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.config.schema import require_choice
from skinlesion.inference.posthoc import Decisions, evaluate_decisions
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import CalibrationScores, calibration_scores
from skinlesion.metrics.classification import confusion_of
from skinlesion.metrics.compare import EnsembleMetrics, ensemble_metrics
from skinlesion.metrics.decision import net_benefit
from skinlesion.metrics.estimate import BootstrapConfig, Estimates
from skinlesion.metrics.selective import KeptShare, aurc, confidence_score, reject_option, risk_coverage
from skinlesion.metrics.summary import ALL, Subgroups, groups_of, metrics_with_ci, strata_of, subgroups
from skinlesion.studies.report.sources import Sources
from skinlesion.taxonomy import Taxonomy
from skinlesion.terminal import track

THRESHOLDS = tuple(round(0.02 * step, 2) for step in range(1, 36))  # of the decision curve, 0.02 to 0.7
KEPT = (0.5, 0.6, 0.7, 0.8, 0.9)  # shares of validation images that the reject option keeps
ENSEMBLE = "ensemble"
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
    kept: dict[str, list[KeptShare]]  # at each share of `KEPT`, which validation turns into a threshold
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
class Stratum:
    """The ensemble and the baselines on all test images, or on those within source or of one confirmation."""

    images: int
    lesions: int
    metrics: dict[str, Estimates]  # of the ensemble, before calibration, and of each baseline, by name
    decisions: Decisions  # operating points
    net_benefit: dict[str, pd.DataFrame | None]  # by target; None where there is no image of the target

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a note takes the place of what is not computable."""
        return {
            "images": self.images,
            "lesions": self.lesions,
            "metrics": self.metrics,
            "operating_points": self.decisions.to_dict()["operating_points"],
            "net_benefit": {
                target: {"note": f"not computable: no image of {target}"} if curve is None else _columns(curve)
                for target, curve in self.net_benefit.items()
            },
        }


@dataclass(frozen=True)
class Results:
    """All numbers of a report."""

    performance: EnsembleMetrics  # of the ensemble and its members
    calibration: CalibrationResult
    rejection: RejectionResult
    decisions: Decisions  # operating points and prediction sets on the test part
    strata: dict[str, Stratum]  # by name, `ALL` first
    subgroups: Subgroups | None  # of the test part; None without a metadata table
    confusion: npt.NDArray[np.int64]  # (K, K) images of the test part by actual (row) and predicted diagnosis
    counts: dict[str, PartCounts]  # by part
    taxonomy: Taxonomy
    corrected: str | None  # code of the diagnosis on which a specialist corrects the vote

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
            "strata": self.strata,
            "net_benefit": self.strata[ALL].to_dict()["net_benefit"],
            "conformal": decisions["conformal"],
            "subgroups": {"note": NO_METADATA} if self.subgroups is None else self.subgroups,
            "confusion": {"codes": list(self.taxonomy.codes), "counts": self.confusion.tolist()},
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
        ConfigError: A prevalence is of none of the targets.
        SkinlesionError: The facts belong to other images.
    """
    vote, calibrated, about = sources.vote, sources.calibrated, sources.about
    test, scaled = vote["test"], calibrated["test"]
    for target in (each for each, share in prevalence.items() if share is not None):
        require_choice("prevalence", target, test.taxonomy.targets)
    groups = None if sources.facts is None else groups_of(test, sources.facts)

    def scores(parts: Mapping[str, Predictions]) -> dict[str, CalibrationScores]:
        return {part: calibration_scores(each, bins=bins) for part, each in parts.items()}

    strata = strata_of(test, groups or {})
    steps: dict[str, Callable[[], Any]] = {
        "performance": lambda: ensemble_metrics(
            vote, calibrated, sources.members, config, chosen=sources.chosen, bins=bins, plain=sources.plain
        ),
        "calibration": lambda: CalibrationResult(about.get("calibration"), scores(vote), scores(calibrated)),
        "rejection": lambda: _rejection(sources, calibrated, config),
        "decisions": lambda: evaluate_decisions(
            scaled,
            config,
            points=about.get("operating_points"),
            sets=about.get("conformal"),
            groups=groups,
            prevalence=prevalence,
        ),
        "strata": lambda: {
            name: _stratum(sources, kept, config, prevalence=prevalence, bins=bins) for name, kept in strata.items()
        },
        "subgroups": lambda: None if groups is None else subgroups(test, groups, config, bins=bins),
        "confusion": lambda: confusion_of(test),
        "counts": lambda: {part: _counts(each) for part, each in vote.items()},
    }
    found = {name: step() for name, step in track(steps.items(), "computing results", len(steps))}
    return Results(**found, taxonomy=test.taxonomy, corrected=(about.get("specialist") or {}).get("target"))


def _stratum(
    sources: Sources,
    kept: npt.NDArray[np.bool_],
    config: BootstrapConfig,
    *,
    prevalence: Mapping[str, float | None],
    bins: int,
) -> Stratum:
    models = {ENSEMBLE: sources.vote["test"], **sources.baselines}
    scaled = sources.calibrated["test"].select(kept)
    targets = scaled.taxonomy.targets
    present = {target for target in targets if scaled.taxonomy.mask(target)[scaled.targets].any()}
    return Stratum(
        images=len(scaled),
        lesions=scaled.lesions,
        metrics={name: metrics_with_ci(each.select(kept), config, bins=bins) for name, each in models.items()},
        decisions=evaluate_decisions(
            scaled, config, points=sources.about.get("operating_points"), sets=None, prevalence=prevalence
        ),
        net_benefit={
            target: net_benefit(scaled, target, THRESHOLDS, config) if target in present else None for target in targets
        },
    )


def _rejection(sources: Sources, calibrated: Mapping[str, Predictions], config: BootstrapConfig) -> RejectionResult:
    own, validation = (
        confidence_score(calibrated[part], [sources.members[name][part] for name in sources.chosen if sources.members])
        for part in ("test", "val")
    )
    test = calibrated["test"]
    return RejectionResult(
        areas=aurc(test, own, config),
        kept={
            name: [
                reject_option(test, scores, validation=validation[name], share=share, config=config) for share in KEPT
            ]
            for name, scores in own.items()
        },
        curves={name: risk_coverage(test, each) for name, each in own.items()},
    )


def _counts(predictions: Predictions) -> PartCounts:
    codes = predictions.taxonomy.codes
    counts = np.bincount(predictions.targets, minlength=len(codes)).tolist()
    confidence = float(np.mean(predictions.probabilities.max(axis=1)))
    return PartCounts(len(predictions), predictions.lesions, dict(zip(codes, counts, strict=True)), confidence)


def _columns(frame: pd.DataFrame) -> dict[str, list[float | None]]:
    return {str(name): [None if pd.isna(value) else float(value) for value in frame[name]] for name in frame}
