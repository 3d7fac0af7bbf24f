"""Metrics of robustness: a model on changed images compared with the original ones, and detection of OOD images."""

from dataclasses import dataclass

import numpy as np

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.bootstrap import Difference, Replicates, SumStatistic, bootstrap, sums_of, without_each
from skinlesion.metrics.classification import HEADLINE, Floats, Integers, ratio, recall
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates
from skinlesion.taxonomy import MELANOMA

NUMBERS = (*HEADLINE, f"recall_{MELANOMA}")
"""Numbers whose change is measured too."""


@dataclass(frozen=True)
class OodDetection:
    """Detection of one kind of out-of-distribution images."""

    pictures: int  # number of images
    auroc: Estimate  # of the score, against dermoscopic images
    flagged: Estimate  # share of the images above the threshold


def compare_predictions(changed: Predictions, original: Predictions, config: BootstrapConfig) -> Estimates:
    """Evaluate a model on changed images and compare it with the same images unchanged.

    Args:
        changed: Predictions for the changed images.
        original: Predictions for the original images.
        config: Bootstrap over lesions.

    Returns:
        Each of `NUMBERS`; `change_NUMBER`, its difference from the original images, paired over resamples; `same`,
        the share of images whose predicted diagnosis does not change; and, where detected, `novel`, the share of
        images flagged as out-of-distribution.
    """
    now, then = (_statistic(each, original.predicted_targets) for each in (changed, original))
    changes = bootstrap(Difference(now, then), config, lesions=original.lesions)
    numbers = bootstrap(now, config, lesions=original.lesions)
    return {**numbers, **{f"change_{name}": changes[name] for name in NUMBERS}}


def majority_baseline(predictions: Predictions) -> dict[str, float]:
    """Each metric of `HEADLINE` for a model that always predicts the most frequent diagnosis."""
    counts = np.bincount(predictions.targets, minlength=len(predictions.taxonomy))
    confusion = np.zeros((len(counts), len(counts)))
    confusion[:, counts.argmax()] = counts
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


def ood_detection(
    scores: Floats, others: Floats, group: Integers, *, threshold: float, config: BootstrapConfig
) -> OodDetection:
    """Measure how well a score separates other images from dermoscopic ones.

    Args:
        scores: (N,) of dermoscopic images.
        others: (N,) of other images, one for each dermoscopic image, resampled together with it.
        group: (N,) lesion numbers.
        threshold: Score above which an image is flagged.
        config: Bootstrap over lesions.
    """
    above = (others[:, None] > scores) + 0.5 * (others[:, None] == scores)  # (N, N) other images, dermoscopic images
    statistic = OodStatistic(
        above=sums_of(sums_of(above, group).T, group).T,
        flagged=sums_of((others > threshold)[:, None], group)[:, 0],
        images=np.bincount(group).astype(np.float64),
    )
    return OodDetection(len(others), **bootstrap(statistic, config, lesions=len(statistic.images)))


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


def _statistic(predictions: Predictions, before: Integers) -> SumStatistic:
    """Metrics, and shares of images: `same` prediction as `before` (N,), and flagged as out-of-distribution."""
    classes, predicted = len(predictions.taxonomy), predictions.predicted_targets
    cells = np.eye(classes**2)[predictions.targets * classes + predicted]
    shares = {"same": predicted == before, **({} if predictions.ood is None else {"novel": predictions.ood})}

    def finish(sums: Floats) -> Replicates:
        confusion = sums[:, : classes**2].reshape(-1, classes, classes)
        found = {name: metric(confusion) for name, metric in HEADLINE.items()}
        found[f"recall_{MELANOMA}"] = recall(confusion)[:, predictions.taxonomy.codes.index(MELANOMA)]
        images = sums[:, : classes**2].sum(axis=1)
        return found | {name: ratio(sums[:, classes**2 + k], images) for k, name in enumerate(shares)}

    return SumStatistic(sums_of(np.column_stack([cells, *shares.values()]), predictions.group), finish)
