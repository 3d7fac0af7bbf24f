"""How far a model stays right when images or facts are disturbed: numbers with intervals, and their change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.bootstrap import (
    Difference,
    Replicates,
    SumStatistic,
    bootstrap,
    sums_of,
    without_each,
)
from skinlesion.metrics.classification import HEADLINE, Floats, Integers, ratio, recall
from skinlesion.metrics.estimate import BootstrapConfig, Method, estimates_to_dict
from skinlesion.taxonomy import CODES, MELANOMA

_CELLS = len(CODES) ** 2
NUMBERS = (*HEADLINE, f"recall_{MELANOMA}")
"""The numbers of which the change is told too."""


@dataclass(frozen=True)
class Judged:
    """A predictions table of disturbed images, and which of them were flagged as novel."""

    table: Predictions  # sorted by image id, as every predictions table is
    novel: npt.NDArray[np.bool_] | None  # (N,), None where it is not judged


def compared(
    disturbed: Judged, undisturbed: Judged, *, resamples: int, seed: int, level: float, method: Method
) -> dict[str, dict[str, Any]]:
    """Judge a model on disturbed images, beside the same images as they were.

    Args:
        disturbed: What it made of them.
        undisturbed: Of the same images.
        resamples: Of the bootstrap over lesions.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".

    Returns:
        By name, with intervals as `bootstrap` gives them: each of `NUMBERS`; `change_NUMBER`, the number less that of
        the undisturbed images on the same resamples of lesions; `same`, the share of images whose predicted
        diagnosis stays; and, where novelty is judged, `novel`, the share that is flagged.
    """
    index = undisturbed.table.group
    config, lesions = BootstrapConfig(resamples, seed, level, method), undisturbed.table.lesions
    before = undisturbed.table.predicted_targets
    now, then = (_sums(each, before, index) for each in (disturbed, undisturbed))
    changes = bootstrap(Difference(now, then), config, lesions=lesions)
    found = bootstrap(now, config, lesions=lesions)
    return estimates_to_dict({**found, **{f"change_{name}": changes[name] for name in NUMBERS}})


def without_images(table: Predictions) -> dict[str, float]:
    """What is reached without looking: each of `HEADLINE` for a model that always says the commonest diagnosis."""
    actual = table.targets
    counts = np.bincount(actual, minlength=len(CODES))
    confusion = np.zeros((len(CODES), len(CODES)))
    confusion[:, counts.argmax()] = counts
    return {name: float(metric(confusion)) for name, metric in HEADLINE.items()}


def rows(found: Mapping[str, Any]) -> pd.DataFrame:
    """A robustness.json as a table: a row for each number of each step of each disturbance."""
    cells = [
        {"kind": kind, "name": name, "step": step["step"], "number": number, **measured}
        for kind in ("images", "facts")
        for name, each in found[kind].items()
        for step in each["steps"]
        for number, measured in step["numbers"].items()
    ]
    return pd.DataFrame(cells).drop(columns="n", errors="ignore")


def told_apart(
    scores: Floats,
    others: Floats,
    index: Integers,
    *,
    threshold: float,
    resamples: int,
    seed: int,
    level: float,
    method: Method,
) -> dict[str, Any]:
    """How well a novelty score tells other pictures from dermoscopic images.

    Args:
        scores: (N,) of dermoscopic images.
        others: (N,) of other pictures, one in the place of each image.
        index: (N,) numbers of the lesions.
        threshold: Above which a picture is flagged.
        resamples: Of the bootstrap over lesions, each with its images and the pictures in their places.
        seed: Of its draws.
        level: Of the intervals.
        method: "percentile" or "bca".

    Returns:
        `pictures`; with intervals `auroc` (other pictures as positives) and `flagged`, the share of other pictures
        above the threshold.
    """
    above = (others[:, None] > scores) + 0.5 * (others[:, None] == scores)  # (N, N) other pictures, images
    lesions = int(index.max()) + 1
    told = _Told(
        above=sums_of(sums_of(above, index).T, index).T,
        flagged=sums_of((others > threshold)[:, None], index)[:, 0],
        images=np.bincount(index).astype(np.float64),
    )
    config = BootstrapConfig(resamples, seed, level, method)
    return {"pictures": len(others), **estimates_to_dict(bootstrap(told, config, lesions=lesions))}


@dataclass(frozen=True)
class _Told:
    """How pictures and images, one of each in every place, compare: sums over the places of each of L lesions."""

    above: Floats  # (L, L) pairs in which the picture (row) is more novel than the image; ties count a half
    flagged: Floats  # (L,) pictures
    images: Floats  # (L,)

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        images = weights @ self.images
        pairs = ((weights @ self.above) * weights).sum(axis=1)
        return {"auroc": ratio(pairs, images**2), "flagged": ratio(weights @ self.flagged, images)}

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        return without_each(self, len(self.images))


def _sums(judged: Judged, before: npt.NDArray[np.int64], index: npt.NDArray[np.int64]) -> SumStatistic:
    predicted = judged.table.predicted_targets
    cells = np.eye(_CELLS)[judged.table.targets * len(CODES) + predicted]
    shares: Sequence[npt.NDArray[Any]] = [predicted == before]
    names = ["same"]
    if judged.novel is not None:
        shares, names = [*shares, judged.novel], [*names, "novel"]
    columns = np.concatenate([cells, np.stack(shares, axis=1)], axis=1)

    def finish(sums: Floats) -> Replicates:
        confusion = sums[:, :_CELLS].reshape(-1, len(CODES), len(CODES))
        found = {name: metric(confusion) for name, metric in HEADLINE.items()}
        found[f"recall_{MELANOMA}"] = recall(confusion)[:, CODES.index(MELANOMA)]
        images = sums[:, :_CELLS].sum(axis=1)
        return found | {name: ratio(sums[:, _CELLS + place], images) for place, name in enumerate(names)}

    return SumStatistic(sums_of(columns, index), finish)
