"""Decisions made from probabilities: operating points, net benefit, and the coverage of prediction sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.bootstrap import Replicates, SumStatistic, bootstrap, sums_of
from skinlesion.metrics.classification import Floats, ratio
from skinlesion.metrics.estimate import BootstrapConfig, Estimates, estimates_to_dict
from skinlesion.metrics.summary import few_lesions

Flags = npt.NDArray[np.bool_]


def at_prevalence(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, *, prevalence: float
) -> tuple[Floats, Floats]:
    """PPV and NPV where a share `prevalence` of the images are of the target, by Bayes' theorem.

    Raises:
        ValueError: The prevalence is no share between 0 and 1.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence is {prevalence}; expected more than 0, less than 1")
    found, spared = np.asarray(sensitivity, dtype=np.float64), np.asarray(specificity, dtype=np.float64)
    hits, alarms = found * prevalence, (1 - spared) * (1 - prevalence)
    misses, rests = (1 - found) * prevalence, spared * (1 - prevalence)
    return ratio(hits, hits + alarms), ratio(rests, rests + misses)


@dataclass(frozen=True)
class FlagMetrics:
    """Flagged images against those of the target.

    Attributes:
        counts: Images by `tp`, `fp`, `fn`, `tn`.
        metrics: `sensitivity`, `specificity`, `ppv`, `npv`, `flagged` (share of all images), and where a prevalence is
            given `ppv_at_prevalence` and `npv_at_prevalence`.
    """

    counts: dict[str, int]
    metrics: Estimates

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"counts": self.counts, "numbers": estimates_to_dict(self.metrics)}


NOT_FLAGGED: dict[str, Any] = {"counts": None, "numbers": {}}
"""In place of `FlagMetrics.to_dict` where no threshold could be chosen."""


def flag_metrics(
    predictions: Predictions, flagged: Flags, target: str, config: BootstrapConfig, *, prevalence: float | None = None
) -> FlagMetrics:
    """Compare flagged images with those of the target.

    Args:
        predictions: Of N images with known actual diagnoses.
        flagged: (N,) whether each image was flagged.
        target: Code or category, such as "malignant", for which they were flagged.
        config: Settings of the intervals.
        prevalence: Share of the target where the model would be used, between 0 and 1; None: not known.
    """
    own = predictions.taxonomy.mask(target)[predictions.targets]
    cells = np.stack([own & flagged, ~own & flagged, own & ~flagged, ~own & ~flagged], axis=1)
    rates = SumStatistic(sums_of(cells, predictions.group), lambda sums: _rates(sums, prevalence))
    counts = dict(zip(("tp", "fp", "fn", "tn"), cells.sum(axis=0).tolist(), strict=True))
    proportions = rates.denominators("sensitivity", "specificity", "ppv", "npv", "flagged")
    return FlagMetrics(counts, bootstrap(rates, config, lesions=predictions.groups, proportions=proportions))


def net_benefit(
    predictions: Predictions, target: str, thresholds: Sequence[float], config: BootstrapConfig
) -> pd.DataFrame:
    """The net benefit of flagging images at each threshold probability of a target.

    Vickers & Elkin, Med. Decis. Making 26:565-574 (2006), doi:10.1177/0272989X06295361: true positives less false
    ones, which weigh as the odds of the threshold, as a share of all images.

    Args:
        predictions: With known actual diagnoses, calibrated.
        target: A code, or a category such as "malignant".
        thresholds: Between 0 and 1.
        config: Settings of the intervals.

    Returns:
        A row a threshold: `threshold`, `model`, `low`, `high`, `all` (flag every image); flagging none has 0.

    Raises:
        ValueError: A threshold is not between 0 and 1.
    """
    at = np.asarray(thresholds, dtype=np.float64)
    if not ((at > 0) & (at < 1)).all():
        raise ValueError(f"thresholds are {list(thresholds)}; expected each above 0, below 1")
    odds = at / (1 - at)
    own = predictions.taxonomy.mask(target)[predictions.targets][:, None]
    flagged = predictions.target_score(target)[:, None] >= at
    gains = (own & flagged) - odds * (~own & flagged)  # (N, T)

    def means(sums: Floats) -> Replicates:
        return {str(column): sums[:, column] / sums[:, 0] for column in range(1, sums.shape[1])}

    columns = np.column_stack([np.ones(len(gains)), gains])
    statistic = SumStatistic(sums_of(columns, predictions.group), means)
    found = bootstrap(statistic, config, lesions=predictions.groups).values()
    share = own.mean()
    return pd.DataFrame(
        {
            "threshold": at,
            "model": [each.value for each in found],
            "low": [each.low for each in found],
            "high": [each.high for each in found],
            "all": share - odds * (1 - share),
        }
    )


@dataclass(frozen=True)
class SetMetrics:
    """The prediction sets of some images.

    Attributes:
        images: How many there are.
        lesions: How many lesions they show.
        metrics: `coverage` (share of sets that hold the actual diagnosis), `size` (mean number of diagnoses) and
            `single` (share of sets of one diagnosis); empty without images.
        note: Says of what to beware, or "".
    """

    images: int
    lesions: int
    metrics: Estimates
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        counts = {"images": self.images, "lesions": self.lesions}
        return {**counts, **estimates_to_dict(self.metrics), **({"note": self.note} if self.note else {})}


@dataclass(frozen=True)
class Shortfall:
    """A group of images whose prediction sets hold the actual diagnosis less often than wanted.

    Attributes:
        fact: By which the images are grouped, such as "dataset" (the source) or "dx_type" (the confirmation), or
            "diagnosis"; "" for all images.
        group: Its value, such as "histo"; "" for all images.
        metrics: Of the sets of these images.
    """

    fact: str
    group: str
    metrics: SetMetrics


@dataclass(frozen=True)
class SetCoverage:
    """The prediction sets of all images, by actual diagnosis, and by fact and group; and the images by size of set."""

    overall: SetMetrics
    by_diagnosis: dict[str, SetMetrics]
    by_group: dict[str, dict[str, SetMetrics]]
    sizes: dict[int, int]

    def shortfalls(self, wanted: float) -> list[Shortfall]:
        """Groups whose interval of the coverage lies below a wanted coverage, 0..1.

        No conformal guarantee covers groups of a fact, such as sources: it is on average over all images, or over those
        of a diagnosis. Each interval is one group's own, so that a few of many fall short by chance.
        """
        groups = {"": {"": self.overall}, "diagnosis": self.by_diagnosis, **self.by_group}
        return [
            Shortfall(fact, name, each)
            for fact, parts in groups.items()
            for name, each in parts.items()
            if (found := each.metrics.get("coverage")) and found.high is not None and found.high < wanted
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        by_group = {
            fact: {name: each.to_dict() for name, each in parts.items()} for fact, parts in self.by_group.items()
        }
        return {
            "all": self.overall.to_dict(),
            "by_diagnosis": {code: each.to_dict() for code, each in self.by_diagnosis.items()},
            "by_group": by_group,
            "sizes": {str(size): images for size, images in self.sizes.items()},
        }


def set_coverage(
    predictions: Predictions, sets: Flags, config: BootstrapConfig, *, groups: Mapping[str, Sequence[str]] | None = None
) -> SetCoverage:
    """Measure prediction sets on images that did not choose their thresholds.

    Args:
        predictions: Of N images with known actual diagnoses.
        sets: (N, K) which diagnoses are in the set of each image.
        config: Settings of the intervals.
        groups: For each fact the group of each image, as from `summary.groups_of`.
    """
    actual, size = predictions.targets, sets.sum(axis=1)
    held = sets[np.arange(len(sets)), actual]
    columns = np.stack([np.ones(len(sets)), held, size, size == 1], axis=1).astype(np.float64)

    def measured(chosen: Flags) -> SetMetrics:
        if not chosen.any():
            return SetMetrics(0, 0, {}, "not computable: no image")
        part = predictions.select(chosen)
        shares = SumStatistic(sums_of(columns[chosen], part.group), _shares)
        proportions = shares.denominators("coverage", "single")
        found = bootstrap(shares, config, lesions=part.groups, proportions=proportions)
        return SetMetrics(len(part), part.lesions, found, few_lesions(part.lesions))

    return SetCoverage(
        overall=measured(np.ones(len(sets), dtype=bool)),
        by_diagnosis={code: measured(actual == k) for k, code in enumerate(predictions.taxonomy.codes)},
        by_group={
            fact: {name: measured(np.asarray(labels) == name) for name in sorted(set(labels))}
            for fact, labels in (groups or {}).items()
        },
        sizes={number: int((size == number).sum()) for number in range(1, sets.shape[1] + 1)},
    )


def _shares(sums: Floats) -> Replicates:
    images = sums[:, 0]
    return {name: ratio(sums[:, k], images) for k, name in enumerate(("coverage", "size", "single"), start=1)}


def _rates(sums: Floats, prevalence: float | None) -> Replicates:
    hits, alarms, misses, rests = sums.T
    found, spared = ratio(hits, hits + misses), ratio(rests, rests + alarms)
    rates = {
        "sensitivity": found,
        "specificity": spared,
        "ppv": ratio(hits, hits + alarms),
        "npv": ratio(rests, rests + misses),
        "flagged": ratio(hits + alarms, sums.sum(axis=1)),
    }
    if prevalence is not None:
        rates["ppv_at_prevalence"], rates["npv_at_prevalence"] = at_prevalence(found, spared, prevalence=prevalence)
    return rates
