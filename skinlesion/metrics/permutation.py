"""Paired permutation test of two models on the same lesions, and the interval of their difference that agrees with it.

Where the models are exchangeable, it is arbitrary which of them made which prediction, so that the difference has the
same distribution when their predictions are swapped in any lesions, all images of a lesion together. The test is exact
under this hypothesis, whatever the metric and however few the lesions (Ernst, Stat. Sci. 19:676-685 (2004),
doi:10.1214/088342304000000396); its p value counts the observed difference too (Phipson & Smyth, Stat. Appl. Genet.
Mol. Biol. 9:39 (2010), doi:10.2202/1544-6115.1585). For accuracy all swaps are counted instead of drawn, which is
McNemar's exact test (Psychometrika 12:153-157 (1947), doi:10.1007/BF02295996) where each lesion has one image.

The interval is the test turned round. Where p is 1 - level or more, it holds the differences that swaps alone explain.
Where p is smaller, it narrows towards the jackknife's error of the difference, since swaps of models that truly differ
spread by the difference too. For a sum over lesions this is the interval of all shifts that sign flips do not refute;
other metrics take the same formula. Zero is outside exactly where p is below 1 - level. An end beyond any possible
difference, such as 1 of two accuracies, is moved to it, which excludes no difference that could be the true one.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import object_array, refuse_other_images
from skinlesion.metrics.bootstrap import FEW, NO_WIDTH, Difference, Statistic, at_once, joined
from skinlesion.metrics.classification import Floats, Integers
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates, possible

_EXACT = "accuracy"  # the metric whose swaps are counted


def paired_differences(
    first: Predictions, second: Predictions, statistic: Callable[[Predictions, int], Statistic], config: BootstrapConfig
) -> Estimates:
    """Estimate each metric of the first predictions minus that of the second, with interval and two-sided p value.

    Args:
        first: With known actual diagnoses.
        second: Predictions for the same images.
        statistic: Metrics, `accuracy` among them, of the predictions of so many models, one after the other.
        config: Number of swaps (`resamples`), their seed, and the level.

    Raises:
        DataError: The predictions are of other images, lesions or actual diagnoses.
    """
    pair = [each.sorted() for each in (first, second)]
    refuse_other_images(*pair)
    pair[1] = replace(pair[1], group_id=pair[0].group_id)  # a table of another program may not know patients
    lesions, difference = pair[0].groups, Difference(*(statistic(each, 1) for each in pair))
    values, jackknife = difference.resampled(np.ones((1, lesions))), difference.jackknife()
    both, generator, blocks = statistic(_stacked(*pair), 2), np.random.default_rng(config.seed), []
    for start in range(0, config.resamples, at_once(lesions)):
        kept = generator.integers(0, 2, (min(at_once(lesions), config.resamples - start), lesions)).astype(np.float64)
        one, two = (both.resampled(np.hstack(weights)) for weights in ((kept, 1 - kept), (1 - kept, kept)))
        blocks.append({name: values - two[name] for name, values in one.items()})
    found = {
        name: _monte_carlo(float(values[name][0]), swapped, jackknife[name], lesions=lesions, level=config.level)
        for name, swapped in joined(blocks).items()
    }
    right = [np.bincount(each.group, each.predicted_targets == each.targets).astype(np.int64) for each in pair]
    found[_EXACT] = mcnemar(right[0] - right[1], images=len(first), level=config.level)
    return {name: each.within(possible(name, difference=True)) for name, each in found.items()}


def mcnemar(differences: Integers, *, images: int, level: float) -> Estimate:
    """Exact test and interval of a difference in accuracy, over lesions.

    Args:
        differences: (L,) images of each lesion that the first model gets right, less those of the second.
        images: In all lesions.
        level: Of the interval, between 0 and 1.
    """
    total, chance = int(differences.sum()), np.ones(1)  # the chance of each sum after swaps, from the lowest up
    for size in np.abs(differences[differences != 0]):
        chance = (np.pad(chance, (0, 2 * size)) + np.pad(chance, (2 * size, 0))) / 2
    sums = np.abs(np.arange(len(chance)) - len(chance) // 2)
    beyond = np.bincount(sums, chance)[::-1].cumsum()[::-1]  # the chance of a sum at least so far from zero
    reach = int(np.flatnonzero(beyond >= round(1 - level, 12))[-1])
    value, p = total / images, min(1.0, float(beyond[abs(total)]))
    if reach == 0:
        note = "both are right in the same images: no interval"
        return Estimate(value, n=len(differences), method="mcnemar", note=note, p=p)
    variance = float((differences**2).sum()) / images**2
    half = _half_width(value, reach / images, swaps=variance, own=variance - value**2 / len(differences))
    return Estimate(value, value - half, value + half, n=len(differences), method="mcnemar", p=p)


def rank_within(scores: npt.NDArray[np.floating], models: int) -> npt.NDArray[np.floating]:
    """The (N, K) scores of several models as ranks within each, which areas under curves do not tell apart.

    Swapped ranks compare the orders of two models whose scores have different scales (Bandos, Rockette & Gur,
    Stat. Med. 24:2873-2893 (2005), doi:10.1002/sim.2149). The scores of one model stay as they are.
    """
    if models == 1:
        return scores
    from scipy.stats import rankdata  # slow to import

    parts = np.asarray(scores, dtype=np.float64).reshape(models, -1, scores.shape[1])
    return np.asarray(rankdata(parts, axis=1), dtype=np.float64).reshape(scores.shape)


def _stacked(*tables: Predictions) -> Predictions:
    """The predictions of several models one after the other, each with its own lesions and groups in the same order."""

    def named(key: str) -> npt.NDArray[np.object_]:
        return object_array(each and f"{k}{each}" for k, table in enumerate(tables) for each in getattr(table, key))

    return Predictions(
        named("image_id"),
        np.concatenate([each.probabilities for each in tables]),
        named("lesion_id"),
        np.concatenate([each.actual for each in tables]),
        tables[0].taxonomy,
        group_id=None if tables[0].group_id is None else named("group_id"),
        scores=np.eye(len(tables[0].taxonomy))[np.concatenate([each.predicted_targets for each in tables])],
    )


def _monte_carlo(value: float, swapped: Floats, jackknife: Floats, *, lesions: int, level: float) -> Estimate:
    known = np.sort(np.abs(swapped[~np.isnan(swapped)]))[::-1]
    if np.isnan(value):
        return Estimate(None, n=lesions, method="permutation", note="not computable")
    if len(known) < FEW * len(swapped):
        note = f"computable after only {len(known) / len(swapped):.0%} of the swaps: no interval"
        return Estimate(value, n=lesions, method="permutation", note=note)
    p = (1 + int((known >= abs(value) - NO_WIDTH).sum())) / (1 + len(known))
    fewer = math.ceil(round((1 - level) * (1 + len(known)), 9)) - 2  # so many swaps may reach it where p < 1 - level
    if fewer < 0 or known[fewer] <= NO_WIDTH:
        note = "too few swaps: no interval" if fewer < 0 else "no swap changes it: no interval"
        return Estimate(value, n=lesions, method="permutation", note=note, p=p)
    usable, swaps = jackknife[~np.isnan(jackknife)], float((known**2).mean())
    own = (len(jackknife) - 1) * float(usable.var()) if len(usable) > 1 else swaps
    half = _half_width(value, float(known[fewer]) + NO_WIDTH, swaps=swaps, own=own)
    return Estimate(value, value - half, value + half, n=lesions, method="permutation", p=p)


def _half_width(value: float, reach: float, *, swaps: float, own: float) -> float:
    """Half the width of the interval: `reach` of the swaps, or less where the value is beyond it, and then below it.

    A shift s is refuted where |value - s| > reach * sqrt(v(s) / swaps), with the variance v(s) = own + (swaps - own) *
    (1 - s / value)**2 of the swaps after it: theirs at no shift, the value's own where the shift is all of it.
    """
    if abs(value) <= reach:
        return reach
    own *= reach**2 / swaps
    half = math.sqrt(max(own, 0.0) / (1 - (reach**2 - own) / value**2))
    return min(half, abs(value) * (1 - 1e-9))  # against rounding
