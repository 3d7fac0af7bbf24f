"""Area under the ROC curve and average precision of each diagnosis, as functions of how often each lesion counts."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from skinlesion.metrics.bootstrap import Replicates, without_each
from skinlesion.metrics.classification import Floats, Integers, ratio
from skinlesion.taxonomy import CODES


@dataclass(frozen=True)
class OneClass:
    """The images of a table by where they stand among the T different scores of a diagnosis's own images."""

    own: Any  # (T, L) sparse: images of the diagnosis with this score, by lesion
    reached: Any  # (T, L) sparse: other images above this score, or at it, that are below the one before
    tied: Any | None  # (T, L) sparse: other images at this score; None where there are none
    others: Floats  # (L,) other images


class AurocStatistic:
    """`auroc_CODE` and `ap_CODE` of each diagnosis against the rest, and their means `macro_auroc`, `macro_ap`.

    As scikit-learn defines them (`roc_auc_score`, `average_precision_score`) with the weights as sample weights.
    """

    def __init__(self, actual: Integers, probabilities: npt.NDArray[Any], index: Integers) -> None:
        """Sort the images.

        Args:
            actual: (N,) class indices.
            probabilities: (N, K).
            index: (N,) lesion numbers, 0..L-1.
        """
        self._lesions = int(index.max()) + 1
        self._given = actual, probabilities, index
        self._classes = [
            sort_class(actual == k, probabilities[:, k], index, lesions=self._lesions) for k in range(len(CODES))
        ]

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        areas, precisions = [], []
        counts = np.ascontiguousarray(weights.T)  # (L, R)
        for each in self._classes:
            area, precision = auroc_and_ap(each, counts)
            areas.append(area)
            precisions.append(precision)
        return _named(areas, precisions)

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        actual, probabilities, index = self._given
        if _torn(actual, index):
            return without_each(self, self._lesions)
        pairs = [_without_each(actual == k, probabilities[:, k], index) for k in range(len(CODES))]
        return _named([area for area, _ in pairs], [precision for _, precision in pairs])


def sort_class(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any], index: Integers, *, lesions: int) -> OneClass:
    """Sort the images of a table by the probability of one diagnosis.

    Args:
        positive: (N,) whether an image has the diagnosis.
        score: (N,) its probability.
        index: (N,) lesion numbers, 0..L-1.
        lesions: L.
    """
    thresholds, place = np.unique(-score[positive].astype(np.float64), return_inverse=True)  # highest score first
    negative = -score[~positive].astype(np.float64)
    left = np.searchsorted(thresholds, negative, side="left")  # the first threshold that reaches the image
    on_it = np.isin(negative, thresholds)
    shape = (len(thresholds), lesions)
    kept = left < len(thresholds)
    return OneClass(
        own=_counted(place, index[positive], shape),
        reached=_counted(left[kept], index[~positive][kept], shape),
        tied=_counted(left[on_it], index[~positive][on_it], shape) if on_it.any() else None,
        others=np.bincount(index[~positive], minlength=lesions).astype(np.float64),
    )


def _counted(rows: npt.NDArray[Any], columns: Integers, shape: tuple[int, int]) -> Any:
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def auroc_and_ap(each: OneClass, counts: Floats) -> tuple[Floats, Floats]:
    """AUROC and average precision, (R,) each, for (L, R) counts of lesions."""
    own = each.own @ counts  # (T, R) positives at each threshold
    false = np.cumsum(each.reached @ counts, axis=0)  # negatives at or above it
    true = np.cumsum(own, axis=0)
    positives, negatives = own.sum(axis=0), each.others @ counts
    precision = ratio((own * np.divide(true, true + false, out=np.zeros_like(true), where=own > 0)).sum(0), positives)
    if each.tied is not None:
        false -= (each.tied @ counts) / 2
    wrong = np.einsum("tr,tr->r", own, false)  # pairs in which a negative stands above a positive
    pairs = positives * negatives
    return ratio(pairs - wrong, pairs), precision


def _named(areas: list[Floats], precisions: list[Floats]) -> Replicates:
    found = {f"auroc_{code}": area for code, area in zip(CODES, areas, strict=True)}
    found |= {f"ap_{code}": precision for code, precision in zip(CODES, precisions, strict=True)}
    return {**found, "macro_auroc": _mean(areas), "macro_ap": _mean(precisions)}


def _torn(actual: Integers, index: Integers) -> bool:
    """Whether a lesion has images of several diagnoses."""
    first = np.zeros(int(index.max()) + 1, dtype=np.int64)
    first[index] = actual
    return bool((first[index] != actual).any())


def _without_each(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any], index: Integers) -> tuple[Floats, Floats]:
    """AUROC and average precision without each lesion, (L,) each, where a lesion's images have one diagnosis.

    The area counts pairs, so that of a lesion's are taken off. The precision at a positive image is TP / n; leaving
    out b images that stand before it makes it (TP - b) / (n - b), or TP / (n - b) if they are negative. Sums over
    the positive images between two images of a lesion, for which b is the same, come from cumulative sums.
    """
    ups, downs = np.sort(-score[positive]), np.sort(-score[~positive])
    before, up_to = (np.searchsorted(ups, -score, side=side) for side in ("left", "right"))  # positives above
    under, over = (np.searchsorted(downs, -score, side=side) for side in ("left", "right"))
    # pairs in which a negative stands above a positive, by either of them; ties count a half
    above = np.where(positive, (under + over) / 2, len(ups) - (before + up_to) / 2)
    lesions = int(index.max()) + 1
    own = np.bincount(index[positive], minlength=lesions)
    others = np.bincount(index[~positive], minlength=lesions)
    wrong = above[positive].sum() - np.bincount(index, weights=above, minlength=lesions)
    kept, pairs = own.sum() - own, (own.sum() - own) * (others.sum() - others)
    order = np.flatnonzero(positive)[np.argsort(-score[positive], kind="stable")]
    counts = up_to[order], (up_to + over)[order]  # TP and n at each positive, highest score first
    return ratio(pairs - wrong, pairs), ratio(_precisions(before, score, counts, own=own, index=index), kept)


def _precisions(
    before: Integers, score: npt.NDArray[Any], counts: tuple[Integers, Integers], *, own: Integers, index: Integers
) -> Floats:
    """The sum of the precisions at the positive images that are left without each lesion: (L,).

    Args:
        before: (N,) how many positive images stand above each image.
        score: (N,) of the diagnosis.
        counts: (P,) each, TP and n at each positive image, highest score first.
        own: (L,) positive images of each lesion.
        index: (N,) lesion numbers.
    """
    true, reached = counts
    order = np.lexsort((-score, index))  # by lesion, highest score first
    lesion, start = index[order], before[order]
    sizes = np.bincount(index)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # 0 for a lesion's first image
    last = np.append(lesion[1:] != lesion[:-1], True)
    end = np.where(last, len(true), np.append(start[1:], 0))
    mine = own[lesion] > 0
    total = np.zeros(len(sizes))
    for b in range(int(sizes.max()) + 1):
        for kind in (False, True):
            left = np.maximum(reached - b, 1)
            each = np.where(reached > b, (true - b * kind) / left, 0.0)
            sums = np.append(0, np.cumsum(each))
            rows = (place == b - 1) & (mine == kind)
            np.add.at(total, lesion[rows], sums[end[rows]] - sums[start[rows]])
            if b == 0:
                rows = (place == 0) & (mine == kind)
                np.add.at(total, lesion[rows], sums[start[rows]])
    return total - _own_terms(order, score, counts, before=before, lesion=lesion, mine=mine)


def _own_terms(
    order: Integers,
    score: npt.NDArray[Any],
    counts: tuple[Integers, Integers],
    *,
    before: Integers,
    lesion: Integers,
    mine: npt.NDArray[np.bool_],
) -> Floats:
    """What the left-out lesion's own positive images have added to the sums: (L,)."""
    rows = order[mine]
    keys, inverse = np.unique(np.stack([lesion[mine], -score[rows].astype(np.float64)]), axis=1, return_inverse=True)
    each = np.bincount(inverse, minlength=keys.shape[1])
    firsts = np.append(True, keys[0, 1:] != keys[0, :-1]) if keys.shape[1] else np.zeros(0, dtype=bool)
    run = np.cumsum(each)
    offset = np.maximum.accumulate(np.where(firsts, run - each, 0)) if len(run) else run
    b = (run - offset)[inverse]  # images of the lesion at or above each of its images
    true, reached = (values[before[rows]] for values in counts)
    terms = np.where(reached > b, (true - b) / np.maximum(reached - b, 1), 0.0)
    return np.asarray(np.bincount(lesion[mine], weights=terms, minlength=int(lesion.max()) + 1), dtype=np.float64)


def _mean(each: list[Floats]) -> Floats:
    """Average over the diagnoses where a number is defined."""
    stacked = np.stack(each)
    defined = ~np.isnan(stacked)
    return ratio(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))
