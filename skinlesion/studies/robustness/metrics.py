"""Metrics of robustness: a model on changed images compared with the original ones, and detection of OOD images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import predicted_targets, targets
from skinlesion.metrics.bootstrap import (
    Difference,
    Replicates,
    Statistic,
    SumStatistic,
    bootstrap,
    lesion_index,
    sums_of,
    without_each,
)
from skinlesion.metrics.classification import HEADLINE, Floats, Integers, ratio, recall
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.taxonomy import CODES, MELANOMA

Numbers = dict[str, Estimate]  # by name of the number

_CELLS = len(CODES) ** 2
NUMBERS = (*HEADLINE, f"recall_{MELANOMA}")
"""Numbers whose change is measured too."""


@dataclass(frozen=True)
class Outcome:
    """Predictions for N images, sorted by image id, with their out-of-distribution scores."""

    table: pd.DataFrame  # predictions table
    scores: Floats | None = None  # (N,); None where nothing is scored
    flagged: npt.NDArray[np.bool_] | None = None  # (N,), score above the threshold


@dataclass(frozen=True)
class OodDetection:
    """Detection of one kind of out-of-distribution images."""

    pictures: int  # number of images
    auroc: Estimate  # of the score, against dermoscopic images
    flagged: Estimate  # share of the images above the threshold


def compare_outcomes(changed: Outcome, original: Outcome, *, config: BootstrapConfig) -> Numbers:
    """Evaluate a model on changed images and compare it with the same images unchanged.

    Args:
        changed: Predictions for the changed images.
        original: Predictions for the original images.
        config: Bootstrap over lesions.

    Returns:
        Each of `NUMBERS`; `change_NUMBER`, its difference from the original images, paired over resamples; `same`,
        the share of images whose predicted diagnosis does not change; and, where scored, `novel`, the share of images
        flagged as out-of-distribution.
    """
    index = lesion_index(original.table)
    before = predicted_targets(original.table)
    now, then = (_statistic(each, before, index) for each in (changed, original))
    changes = _estimates(Difference(now, then), index, config)
    return {**_estimates(now, index, config), **{f"change_{name}": changes[name] for name in NUMBERS}}


def majority_baseline(table: pd.DataFrame) -> dict[str, float]:
    """Each metric of `HEADLINE` for a model that always predicts the most frequent diagnosis."""
    counts = np.bincount(targets(table), minlength=len(CODES))
    confusion = np.zeros((len(CODES), len(CODES)))
    confusion[:, counts.argmax()] = counts
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


def ood_detection(
    scores: Floats, others: Floats, index: Integers, *, threshold: float, config: BootstrapConfig
) -> OodDetection:
    """Measure how well a score separates other images from dermoscopic ones.

    Args:
        scores: (N,) of dermoscopic images.
        others: (N,) of other images, one for each dermoscopic image, resampled together with it.
        index: (N,) lesion numbers.
        threshold: Score above which an image is flagged.
        config: Bootstrap over lesions.
    """
    above = (others[:, None] > scores) + 0.5 * (others[:, None] == scores)  # (N, N) other images, dermoscopic images
    statistic = OodStatistic(
        above=sums_of(sums_of(above, index).T, index).T,
        flagged=sums_of((others > threshold)[:, None], index)[:, 0],
        images=np.bincount(index).astype(np.float64),
    )
    return OodDetection(len(others), **_estimates(statistic, index, config))


@dataclass(frozen=True)
class OodStatistic:
    """AUROC and share of flagged images, from sums over the images of each of L lesions."""

    above: Floats  # (L, L) pairs in which the other image (row) has the higher score; ties count half
    flagged: Floats  # (L,) flagged other images
    images: Floats  # (L,) images

    def resampled(self, weights: Floats) -> Replicates:
        """See `Statistic`."""
        images = weights @ self.images
        pairs = ((weights @ self.above) * weights).sum(axis=1)
        return {"auroc": ratio(pairs, images**2), "flagged": ratio(weights @ self.flagged, images)}

    def jackknife(self) -> Replicates:
        """See `Statistic`."""
        return without_each(self, len(self.images))


def _statistic(outcome: Outcome, before: npt.NDArray[np.int64], index: Integers) -> SumStatistic:
    predicted = predicted_targets(outcome.table)
    cells = np.eye(_CELLS)[targets(outcome.table) * len(CODES) + predicted]
    shares = {"same": predicted == before}
    if outcome.flagged is not None:
        shares["novel"] = outcome.flagged

    def finish(sums: Floats) -> Replicates:
        confusion = sums[:, :_CELLS].reshape(-1, len(CODES), len(CODES))
        found = {name: metric(confusion) for name, metric in HEADLINE.items()}
        found[f"recall_{MELANOMA}"] = recall(confusion)[:, CODES.index(MELANOMA)]
        images = sums[:, :_CELLS].sum(axis=1)
        return found | {name: ratio(sums[:, _CELLS + k], images) for k, name in enumerate(shares)}

    return SumStatistic(sums_of(np.column_stack([cells, *shares.values()]), index), finish)


def _estimates(statistic: Statistic, index: Integers, config: BootstrapConfig) -> Numbers:
    settings = {"resamples": config.resamples, "seed": config.seed, "level": config.level}
    found = bootstrap(statistic, lesions=int(index.max()) + 1, **settings, method=config.method)
    return {name: Estimate.from_dict(each) for name, each in found.items()}
