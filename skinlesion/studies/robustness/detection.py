"""Detection of out-of-distribution images: images unlike those of training, and false alarms among the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.metrics.bootstrap import Replicates, SumStatistic, bootstrap, sums_of, without_each
from skinlesion.metrics.classification import Floats, Integers, ratio
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.metrics.summary import groups_of
from skinlesion.studies.robustness.corruptions import ALTERED, NON_DERMOSCOPIC, Draw, photographs


@dataclass(frozen=True)
class OodDetection:
    """Detection of one kind of out-of-distribution images."""

    pictures: int  # number of images
    auroc: Estimate  # of the score, against the original images
    flagged: Estimate  # share of the images above the threshold


def ood_detection(
    scores: Floats, others: Floats, group: Integers, *, threshold: float, config: BootstrapConfig
) -> OodDetection:
    """Measure how well a score separates other images from those like the training images.

    Args:
        scores: (N,) of the original images.
        others: (N,) of other images, one for each original image, resampled together with it.
        group: (N,) lesion numbers.
        threshold: Score above which an image is flagged.
        config: Bootstrap over lesions.
    """
    above = (others[:, None] > scores) + 0.5 * (others[:, None] == scores)  # (N, N) other images, original ones
    statistic = OodStatistic(
        above=sums_of(sums_of(above, group).T, group).T,
        flagged=sums_of((others > threshold)[:, None], group)[:, 0],
        images=np.bincount(group).astype(np.float64),
    )
    lesions = len(statistic.images)
    return OodDetection(len(others), **bootstrap(statistic, config, lesions=lesions, proportions={"flagged": lesions}))


def picture_detection(
    scores: Floats, pictures: Floats, group: Integers, *, threshold: float, config: BootstrapConfig
) -> OodDetection:
    """As `ood_detection` of P pictures that are not made from the images: each counts once, and none is resampled.

    The interval of the AUROC is over lesions alone; that of the share of P flagged pictures is Clopper-Pearson's.
    """
    above = (pictures > scores[:, None]) + 0.5 * (pictures == scores[:, None])  # (N, P)
    share = float((pictures > threshold).mean())

    def finish(sums: Floats) -> Replicates:
        return {"auroc": ratio(sums[:, 0], sums[:, 1]), "flagged": np.full(len(sums), share)}

    statistic = SumStatistic(sums_of(np.stack([above.mean(axis=1), np.ones(len(scores))], axis=1), group), finish)
    found = bootstrap(statistic, config, lesions=int(group.max()) + 1, proportions={"flagged": len(pictures)})
    return OodDetection(len(pictures), **found)


def flag_rates(
    predictions: Predictions, groups: Mapping[str, Sequence[str]], config: BootstrapConfig
) -> dict[str, dict[str, Estimate]]:
    """Share of N images that are flagged as out-of-distribution, by fact and group: a false alarm each.

    Args:
        predictions: With flags.
        groups: For each fact the group of each image, as from `summary.groups_of`.
        config: Bootstrap over lesions.
    """

    def measured(part: Predictions) -> Estimate:
        columns = np.column_stack([np.ones(len(part)), np.asarray(part.ood)])
        statistic = SumStatistic(sums_of(columns, part.group), lambda sums: {"flagged": ratio(sums[:, 1], sums[:, 0])})
        proportions = statistic.denominators("flagged")
        return bootstrap(statistic, config, lesions=part.groups, proportions=proportions)["flagged"]

    return {
        fact: {name: measured(predictions.select(np.asarray(labels) == name)) for name in sorted(set(labels))}
        for fact, labels in groups.items()
    }


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


@dataclass(frozen=True)
class OodResult:
    """Detection of out-of-distribution images."""

    passing: float  # share of validation images that are not flagged, 0 to 1
    threshold: float  # score above which an image is flagged
    pictures: dict[str, OodDetection]  # by kind of image
    flag_rates: dict[str, dict[str, Estimate]]  # of the original images, by diagnosis, source and other facts
    scores: dict[str, Floats] = field(repr=False)  # by kind of image, (N,) of the original ones first

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the scores."""
        return {
            "passing": self.passing,
            "threshold": self.threshold,
            "pictures": self.pictures,
            "flag_rates": self.flag_rates,
        }


def detect(
    original: Predictions,
    predictor: Predictor,
    frame: pd.DataFrame,
    predict: Callable[[str, Draw], Predictions],
    config: BootstrapConfig,
) -> OodResult:
    """Score other images, altered ones and the original ones with a model's detector.

    Args:
        original: Predictions for N images as they are.
        predictor: A model with a detector.
        frame: Checked frame of the images.
        predict: Predicts the images as a function changes them, given a label.
        config: Bootstrap over lesions.
    """
    detector, kinds = predictor.posthoc.ood, {**NON_DERMOSCOPIC, **ALTERED}
    assert detector is not None
    known, threshold = np.asarray(original.ood_score), float(detector["threshold"])
    scores = {kind: np.asarray(predict(kind, draw).ood_score) for kind, draw in kinds.items()}
    settings: dict[str, Any] = {"threshold": threshold, "config": config}
    found = {kind: ood_detection(known, own, original.group, **settings) for kind, own in scores.items()}
    scores["photograph"] = np.asarray(predictor.predict(photographs()).ood_score)
    found["photograph"] = picture_detection(known, scores["photograph"], original.group, **settings)
    groups = {"diagnosis": original.actual.tolist(), **groups_of(original, frame)}
    rates = flag_rates(original, groups, config)
    return OodResult(float(detector["passing"]), threshold, found, rates, {"original": known, **scores})
