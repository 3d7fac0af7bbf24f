"""Area under the ROC curve, above a sensitivity too, and average precision, as functions of how often lesions count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from skinlesion.metrics.bootstrap import Replicates, without_each
from skinlesion.metrics.classification import Floats, Integers, mean_of_defined, ratio


@dataclass(frozen=True)
class RankedClass:
    """The images of a table by their rank among the T different probabilities of a diagnosis's own images."""

    own: Any  # (T, L) sparse: images of the diagnosis with this probability, by lesion
    reached: Any  # (T, L) sparse: other images above this probability, or at it, that are below the one before
    tied: Any | None  # (T, L) sparse: other images at this probability; None where there are none
    others: Floats  # (L,) other images


def rank_classes(actual: Integers, probabilities: npt.NDArray[Any], group: Integers) -> list[RankedClass]:
    """Rank the images of a table by the probability of each diagnosis.

    Args:
        actual: (N,) class indices.
        probabilities: (N, K).
        group: (N,) lesion numbers, 0..L-1.

    Returns:
        K of them.
    """
    return [_rank(actual == k, values, group) for k, values in enumerate(probabilities.T)]


def auroc_and_ap(each: RankedClass, counts: Floats) -> tuple[Floats, Floats]:
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


def partial_auc(each: RankedClass, counts: Floats, *, sensitivity: float) -> Floats:
    """Area under the ROC curve from where it reaches a sensitivity to its end, as the ISIC challenges define it.

    The curve is a polyline through a point for each different probability; where it passes the sensitivity between two
    points, the place is interpolated. The area is not normalised: a perfect ranking has 1, chance (1 - s**2) / 2.

    Args:
        each: The images of the table, ranked by one diagnosis.
        counts: (L, R) how often each lesion counts in each resample.
        sensitivity: Above 0, up to 1.

    Returns:
        (R,); NaN without images of the diagnosis, or without others.
    """
    own, reached = each.own @ counts, each.reached @ counts  # (T, R): steps up and to the right at each probability
    tied = np.zeros_like(own) if each.tied is None else each.tied @ counts
    height = np.cumsum(own, axis=0)
    before = height - own
    positives, negatives = own.sum(axis=0), each.others @ counts
    reaches = ratio(height, positives) >= sensitivity
    beyond = ratio(before, positives) >= sensitivity  # the whole step lies above
    steps = (reached - tied) * before + tied * (before + height) / 2  # straight right, then aslant at ties
    area = np.where(beyond, steps, 0).sum(axis=0) + (negatives - reached.sum(axis=0)) * positives
    if each.tied is not None:
        level = sensitivity * positives
        left = 1 - ratio(level - before, own)  # the share of the slanting step that lies above
        area += np.where(reaches & ~beyond, tied * left * (level + height) / 2, 0).sum(axis=0)
    return ratio(area, positives * negatives)


class AurocStatistic:
    """`auroc_CODE` and `ap_CODE` of each diagnosis against the rest, and their means `macro_auroc`, `macro_ap`.

    As scikit-learn defines them (`roc_auc_score`, `average_precision_score`) with the weights as sample weights.
    """

    def __init__(
        self, actual: Integers, probabilities: npt.NDArray[Any], group: Integers, *, codes: Sequence[str]
    ) -> None:
        """Rank the images by (N, K) probabilities; the other arguments as of `rank_classes`."""
        self._actual, self._probabilities, self._group, self._codes = actual, probabilities, group, codes
        self._lesions = int(group.max()) + 1
        self._classes = rank_classes(actual, probabilities, group)

    def resampled(self, weights: Floats) -> Replicates:
        """As `Statistic`."""
        counts = np.ascontiguousarray(weights.T)  # (L, R)
        return self._named([auroc_and_ap(each, counts) for each in self._classes])

    def jackknife(self) -> Replicates:
        """As `Statistic`."""
        first = np.zeros(self._lesions, dtype=np.int64)
        first[self._group] = self._actual
        if (first[self._group] != self._actual).any():  # a lesion has images of several diagnoses
            return without_each(self, self._lesions)
        columns = enumerate(self._probabilities.T)
        return self._named([_jackknife(self._actual == k, values, self._group) for k, values in columns])

    def _named(self, pairs: Sequence[tuple[Floats, Floats]]) -> Replicates:
        columns = dict(zip(("auroc", "ap"), zip(*pairs, strict=True), strict=True))
        each = {
            f"{name}_{code}": values
            for name, column in columns.items()
            for code, values in zip(self._codes, column, strict=True)
        }
        means = {f"macro_{name}": mean_of_defined(np.stack(column, axis=-1)) for name, column in columns.items()}
        return each | means


def _rank(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any], group: Integers) -> RankedClass:
    lesions = int(group.max()) + 1
    thresholds, place = np.unique(-score[positive].astype(np.float64), return_inverse=True)  # highest score first
    negative = -score[~positive].astype(np.float64)
    left = np.searchsorted(thresholds, negative, side="left")  # the first threshold that reaches the image
    kept, on_it = left < len(thresholds), np.isin(negative, thresholds)

    def counted(rows: npt.NDArray[Any], columns: Integers) -> Any:
        return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(thresholds), lesions))

    return RankedClass(
        own=counted(place, group[positive]),
        reached=counted(left[kept], group[~positive][kept]),
        tied=counted(left[on_it], group[~positive][on_it]) if on_it.any() else None,
        others=np.bincount(group[~positive], minlength=lesions).astype(np.float64),
    )


def _jackknife(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any], group: Integers) -> tuple[Floats, Floats]:
    """AUROC and average precision without each lesion, (L,) each, where a lesion's images have one diagnosis.

    The area counts pairs, so that those of a lesion are taken off. The precision at a positive image is TP / n; leaving
    out b images that stand before it makes it (TP - b) / (n - b), or TP / (n - b) if they are negative. Sums over
    the positive images between two images of a lesion, for which b is the same, come from cumulative sums.
    """
    ups, downs = np.sort(-score[positive]), np.sort(-score[~positive])
    before, up_to = (np.searchsorted(ups, -score, side=side) for side in ("left", "right"))  # positives above
    under, over = (np.searchsorted(downs, -score, side=side) for side in ("left", "right"))
    # pairs in which a negative stands above a positive, by either of them; ties count a half
    above = np.where(positive, (under + over) / 2, len(ups) - (before + up_to) / 2)
    lesions = int(group.max()) + 1
    own = np.bincount(group[positive], minlength=lesions)
    others = np.bincount(group[~positive], minlength=lesions)
    wrong = above[positive].sum() - np.bincount(group, weights=above, minlength=lesions)
    kept, pairs = own.sum() - own, (own.sum() - own) * (others.sum() - others)
    order = np.flatnonzero(positive)[np.argsort(-score[positive], kind="stable")]
    counts = up_to[order], (up_to + over)[order]  # TP and n at each positive, highest score first
    return ratio(pairs - wrong, pairs), ratio(_precisions(before, score, counts, own=own, group=group), kept)


def _precisions(
    before: Integers, score: npt.NDArray[Any], counts: tuple[Integers, Integers], *, own: Integers, group: Integers
) -> Floats:
    """The sum of the precisions at the positive images that are left without each lesion: (L,)."""
    true, reached = counts  # (P,) each: TP and n at each positive image, highest score first; `before` is (N,)
    order = np.lexsort((-score, group))  # by lesion, highest score first
    lesion, start = group[order], before[order]
    sizes = np.bincount(group)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # 0 for a lesion's first image
    last = np.append(lesion[1:] != lesion[:-1], True)
    end = np.where(last, len(true), np.append(start[1:], 0))
    is_own = own[lesion] > 0
    total = np.zeros(len(sizes))
    for b in range(int(sizes.max()) + 1):
        for kind in (False, True):
            left = np.maximum(reached - b, 1)
            each = np.where(reached > b, (true - b * kind) / left, 0.0)
            sums = np.append(0, np.cumsum(each))
            rows = (place == b - 1) & (is_own == kind)
            np.add.at(total, lesion[rows], sums[end[rows]] - sums[start[rows]])
            if b == 0:
                rows = (place == 0) & (is_own == kind)
                np.add.at(total, lesion[rows], sums[start[rows]])
    return total - _own_terms(order, score, counts, before=before, lesion=lesion, is_own=is_own)


def _own_terms(
    order: Integers,
    score: npt.NDArray[Any],
    counts: tuple[Integers, Integers],
    *,
    before: Integers,
    lesion: Integers,
    is_own: npt.NDArray[np.bool_],
) -> Floats:
    """The terms that the left-out lesion's own positive images added to the sums: (L,)."""
    rows = order[is_own]
    keys, inverse = np.unique(np.stack([lesion[is_own], -score[rows].astype(np.float64)]), axis=1, return_inverse=True)
    each = np.bincount(inverse, minlength=keys.shape[1])
    firsts = np.append(True, keys[0, 1:] != keys[0, :-1]) if keys.shape[1] else np.zeros(0, dtype=bool)
    run = np.cumsum(each)
    offset = np.maximum.accumulate(np.where(firsts, run - each, 0)) if len(run) else run
    b = (run - offset)[inverse]  # images of the lesion at or above each of its images
    true, reached = (values[before[rows]] for values in counts)
    terms = np.where(reached > b, (true - b) / np.maximum(reached - b, 1), 0.0)
    return np.asarray(np.bincount(lesion[is_own], weights=terms, minlength=int(lesion.max()) + 1), dtype=np.float64)
