"""All reported metrics of predictions with their intervals: per image, per lesion, and in groups of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.data.columns import further_facts
from skinlesion.errors import DataError, counted
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.auroc import AurocStatistic
from skinlesion.metrics.bootstrap import JointStatistic, Replicates, SumStatistic, bootstrap, sums_of
from skinlesion.metrics.calibration import (
    Edges,
    bin_edges,
    bin_of,
    brier,
    negative_log_likelihood,
    noise_floor,
    target_calibration,
)
from skinlesion.metrics.classification import HEADLINE, Floats, f1, precision, ratio, recall
from skinlesion.metrics.estimate import EXACT, FEW_LESIONS, BootstrapConfig, Estimate, Estimates, estimates_to_dict
from skinlesion.metrics.permutation import rank_within

FACTS = ("sex", "age", "localization", "dataset", "dx_type")
"""Columns of the facts by which images are grouped, in the order in which they are reported; `age` as bands."""

BANDS = (0, 30, 45, 60, 75)  # years from which each age band starts
UNKNOWN = "unknown"
HISTOLOGY = "histo"  # value of `dx_type`
ALL = "all images"


@dataclass(frozen=True)
class Summary:
    """All reported metrics of predictions.

    Attributes:
        images: How many there are.
        lesions: How many lesions they show.
        metrics: As from `metrics_with_ci`.
        per_lesion: The same where a lesion's images have voted with the mean of their probabilities; None where every
            lesion has one image, so that they are those of `metrics`.
    """

    images: int
    lesions: int
    metrics: Estimates
    per_lesion: Estimates | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the headline metrics in front."""
        headline = {name: self.metrics[name] for name in HEADLINE}
        return {
            "images": self.images,
            "lesions": self.lesions,
            **{name: each.value for name, each in headline.items()},
            "intervals": {name: [each.low, each.high] for name, each in headline.items()},
            "numbers": estimates_to_dict(self.metrics),
            "per_lesion": None if self.per_lesion is None else estimates_to_dict(self.per_lesion),
        }


def summarize_predictions(predictions: Predictions, config: BootstrapConfig, *, bins: int) -> Summary:
    """Measure predictions with known actual diagnoses; `bins` divide the confidences of the calibration errors."""
    images, lesions = len(predictions), predictions.lesions
    metrics = metrics_with_ci(predictions, config, bins=bins)
    same = lesions == images
    return Summary(
        images, lesions, metrics, None if same else metrics_with_ci(predictions.by_group(), config, bins=bins)
    )


def metrics_with_ci(predictions: Predictions, config: BootstrapConfig, *, bins: int) -> Estimates:
    """Estimate every reported metric of predictions with its interval over lesions.

    Args:
        predictions: With known actual diagnoses.
        config: Settings of the intervals.
        bins: Number of bins of the calibration errors.

    Returns:
        By name: `accuracy`, `macro_f1`, `balanced_accuracy`, `macro_auroc`, `macro_ap`, `ece`, `ece_mass`,
        `classwise_ece` (mean), `brier`, `nll`, `precision_CODE`, `recall_CODE`, `f1_CODE`, `auroc_CODE`, `ap_CODE` for
        each diagnosis, and the last two of the taxonomy's targets that are categories, such as `auroc_malignant`;
        `intercept_TARGET`, `slope_TARGET` and `oe_TARGET` of each target, as from `target_calibration`; `ece_floor`,
        `ece_mass_floor` and `classwise_ece_floor`, what perfect calibration would show, with the range of its draws.
        The bins of equal mass are those of the predictions in every resample.
    """
    statistic, codes = metrics_statistic(predictions, bins=bins), predictions.taxonomy.codes
    names = ("accuracy", *(f"{metric}_{code}" for metric in ("precision", "recall") for code in codes))
    proportions = _confusion_statistic(predictions).denominators(*names)
    found = bootstrap(statistic, config, lesions=predictions.groups, proportions=proportions)
    explained = {name: _explained(name, each, predictions) for name, each in found.items()}
    return explained | _floors(predictions, config, bins=bins)


def _floors(predictions: Predictions, config: BootstrapConfig, *, bins: int) -> Estimates:
    """Mean of each calibration error that perfect calibration would show, and the range of its draws."""
    draws, found = noise_floor(predictions, bins=bins, seed=config.seed), {}
    for name in ("ece", "ece_mass", "classwise_ece"):
        low, high = np.quantile(draws[name], [(1 - config.level) / 2, (1 + config.level) / 2]).tolist()
        each = Estimate(float(draws[name].mean()), low, high, predictions.groups, "percentile")
        certain = replace(each, low=None, high=None, note="no interval: all draws agree")
        found[f"{name}_floor"] = certain if np.ptp(draws[name]) < 1e-9 else each
    return found


def metrics_statistic(predictions: Predictions, models: int = 1, *, bins: int) -> JointStatistic:
    """All reported metrics as functions of how often each lesion counts: of one model, or of several in a row."""
    actual, taxonomy = predictions.targets, predictions.taxonomy
    scores = rank_within(predictions.probabilities, models)
    areas = AurocStatistic(actual, scores, predictions.group, codes=taxonomy.codes)
    return JointStatistic(
        (
            *(target_calibration(predictions, each) for each in taxonomy.targets),
            *(category_auroc(predictions, each, models) for each in taxonomy.targets if each not in taxonomy.codes),
            _confusion_statistic(predictions),
            _calibration_statistic(predictions, bins=bins),
            areas,  # last: its means over diagnoses count
        )
    )


def category_auroc(predictions: Predictions, target: str, models: int = 1) -> AurocStatistic:
    """`auroc_TARGET` and `ap_TARGET` of a code, or of a category by the sum of its diagnoses' probabilities."""
    rest = (~predictions.taxonomy.mask(target)[predictions.targets]).astype(np.int64)  # 0: of the target
    scores = rank_within(predictions.target_score(target)[:, None], models)
    return AurocStatistic(rest, scores, predictions.group, codes=(target,))


def _confusion_statistic(predictions: Predictions) -> SumStatistic:
    codes = predictions.taxonomy.codes
    classes = len(codes)
    cells = np.eye(classes**2)[predictions.targets * classes + predictions.predicted_targets]

    def finish(sums: Floats) -> Replicates:
        confusion = sums.reshape(len(sums), classes, classes)
        found = {name: metric(confusion) for name, metric in HEADLINE.items()}
        for name, metric in (("precision", precision), ("recall", recall), ("f1", f1)):
            values = metric(confusion)  # (R, K)
            found |= {f"{name}_{code}": values[:, k] for k, code in enumerate(codes)}
        return found

    return SumStatistic(sums_of(cells, predictions.group), finish)


def _calibration_statistic(predictions: Predictions, *, bins: int) -> SumStatistic:
    """Calibration errors from the gap summed in each bin; Brier and log-likelihood from means."""
    values, actual = predictions.probabilities.astype(np.float64), predictions.targets
    confidence, classes = predictions.confidence, len(predictions.taxonomy)
    gap = (actual == predictions.predicted_targets) - confidence
    columns, ends = [np.ones(len(actual)), brier(predictions), negative_log_likelihood(predictions)], [3]
    edges: tuple[Edges, ...] = ("width", "mass")
    for each in edges:
        limits = bin_edges(confidence, bins=bins, edges=each)
        columns += list((np.eye(len(limits) - 1)[bin_of(confidence, limits)] * gap[:, None]).T)
        ends.append(len(columns))
    limits = bin_edges(values, bins=bins, edges="width")
    for own, value in zip(np.eye(classes)[actual].T, values.T, strict=True):
        columns += list((np.eye(bins)[bin_of(value, limits)] * (own - value)[:, None]).T)

    def finish(sums: Floats) -> Replicates:
        ece, ece_mass = (np.abs(sums[:, low:high]).sum(axis=1) for low, high in pairwise(ends))
        classwise = np.abs(sums[:, ends[-1] :]).sum(axis=1) / classes
        totals = {"ece": ece, "ece_mass": ece_mass, "classwise_ece": classwise, "brier": sums[:, 1], "nll": sums[:, 2]}
        return {name: ratio(total, sums[:, 0]) for name, total in totals.items()}

    return SumStatistic(sums_of(np.stack(columns, axis=1), predictions.group), finish)


def _explained(name: str, each: Estimate, predictions: Predictions) -> Estimate:
    """Say why a metric of a diagnosis cannot be computed, or has too few lesions for its interval."""
    code = name.rpartition("_")[2]
    if code not in predictions.taxonomy.codes:
        return each
    if each.value is not None:
        lesions = len(np.unique(predictions.group[predictions.actual == code]))
        is_sure = each.low is None or each.method == EXACT or lesions >= FEW_LESIONS
        return each if is_sure else replace(each, few=lesions)
    reason = f"only {code}" if (predictions.actual == code).all() else f"{code} is told apart without an error"
    reason = f"{code} is never predicted" if "precision" in name else reason
    reason = f"no image of {code}" if (predictions.actual != code).all() else reason
    return replace(each, note=f"not computable: {reason}")


@dataclass(frozen=True)
class Subgroup:
    """The metrics of a group of images; the note says where it has too few lesions to say much."""

    images: int
    lesions: int
    metrics: Estimates
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found = {"images": self.images, "lesions": self.lesions, "numbers": estimates_to_dict(self.metrics)}
        return found | ({"note": self.note} if self.note else {})


Subgroups = dict[str, dict[str, Subgroup]]
"""By fact, then group."""


def groups_of(predictions: Predictions, facts: pd.DataFrame, *, bands: Sequence[float] = BANDS) -> dict[str, list[str]]:
    """Find for each fact the group that each image is in.

    Args:
        predictions: Of N images.
        facts: image_id and any of `FACTS` or others, such as the checked frame of the data set: age in years. Rows of
            other images are passed over; so are facts that no image of the predictions has.
        bands: Years from which each age band starts, ascending.

    Returns:
        By fact, in the order of `FACTS`, then others: N labels in the order of the predictions, "unknown" where empty
        or missing; numbers other than the age by their quarters.

    Raises:
        DataError: The facts lack images of the predictions, or name one twice.
    """
    if "image_id" not in facts:
        raise DataError(f"the facts have columns {list(facts)}; expected image_id among them")
    known = facts.drop_duplicates("image_id")
    missing = sorted(set(predictions.image_id) - set(known["image_id"]))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(predictions)} images are not among the facts ({', '.join(missing[:5])}); give the "
            "metadata of the same images"
        )
    if len(known) != len(facts.drop_duplicates()):
        raise DataError("the facts have several rows for one image; keep one row an image")
    rows = known.set_index("image_id").loc[predictions.image_id.tolist()]
    named = [fact for fact in (*FACTS, *further_facts(rows)) if fact in rows]
    labels = {fact: _labels(rows[fact], fact, bands) for fact in named}
    return {fact: each for fact, each in labels.items() if set(each) != {UNKNOWN}}


def strata_of(predictions: Predictions, groups: Mapping[str, Sequence[str]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which images count in each row of a headline number: all, those within source, those confirmed by histology.

    The source of most images of the taxonomy's most frequent diagnosis, such as nevi, tells that diagnosis by itself;
    the row within source leaves it out.

    Args:
        predictions: N images with known actual diagnoses.
        groups: As from `groups_of`.

    Returns:
        (N,) by name; `ALL` alone where `groups` has neither sources nor confirmations, or they divide no images.
    """
    found = {ALL: np.ones(len(predictions), dtype=bool)}
    sources = np.asarray(groups.get("dataset", ()), dtype=object)
    if len(sources):
        frequent = pd.Series(sources[predictions.actual == predictions.taxonomy.majority])
        for source in frequent[frequent != UNKNOWN].mode()[:1]:
            found[f"without {source}"] = np.asarray(sources != source)
    if "dx_type" in groups:
        found["histology alone"] = np.asarray(groups["dx_type"], dtype=object) == HISTOLOGY
    return {name: kept for name, kept in found.items() if name == ALL or 0 < kept.sum() < len(kept)}


def subgroups(
    predictions: Predictions, groups: Mapping[str, Sequence[str]], config: BootstrapConfig, *, bins: int
) -> Subgroups:
    """Estimate every reported metric of each group with its interval.

    Args:
        predictions: With known actual diagnoses.
        groups: As from `groups_of`.
        config: Settings of the intervals.
        bins: Number of bins of the calibration errors.
    """

    def measured(rows: Predictions) -> Subgroup:
        metrics = metrics_with_ci(rows, config, bins=bins)
        return Subgroup(len(rows), rows.lesions, metrics, few_lesions(rows.lesions))

    return {
        fact: {
            name: measured(predictions.select(np.asarray(labels, dtype=object) == name))
            for name in sorted(set(labels), key=lambda name: (name == UNKNOWN, name))
        }
        for fact, labels in groups.items()
    }


def subgroup_rows(found: Subgroups) -> pd.DataFrame:
    """Subgroups as a table: a row for each number of each group."""
    return pd.DataFrame(
        [
            {
                "fact": fact,
                "group": name,
                "images": each.images,
                "lesions": each.lesions,
                "number": number,
                "value": measured.value,
                "low": measured.low,
                "high": measured.high,
                "note": "; ".join(note for note in (each.note, measured.note) if note),
            }
            for fact, groups in found.items()
            for name, each in groups.items()
            for number, measured in each.metrics.items()
        ],
        columns=["fact", "group", "images", "lesions", "number", "value", "low", "high", "note"],
    )


def few_lesions(lesions: int) -> str:
    """A note, where there are too few lesions to say much; else ""."""
    return f"only {counted(lesions, 'lesion')}: says little" if lesions < FEW_LESIONS else ""


def _labels(values: "pd.Series[Any]", fact: str, bands: Sequence[float]) -> list[str]:
    if not pd.api.types.is_numeric_dtype(values):
        return [str(value) if isinstance(value, str) and value.strip() else UNKNOWN for value in values]
    if fact == "age":
        starts = list(bands[1:])
        ends = [f"{low:02.0f}-{high - 1:02.0f}" for low, high in pairwise(bands)]
        names = [*ends, f"{bands[-1]:.0f}+", UNKNOWN]
    else:  # by quarters
        starts = sorted({*values.dropna().quantile([0.25, 0.5, 0.75]).round(2)})
        ends = [f"{low:g} to {high:g}" for low, high in pairwise(starts)]
        first, last = (f"below {starts[0]:g}", f"{starts[-1]:g} or more") if starts else ("", "")
        names = [first, *ends, last, UNKNOWN]
    places = np.where(values.isna(), len(names) - 1, np.searchsorted(starts, values.fillna(0), side="right"))
    return [names[place] for place in places]
