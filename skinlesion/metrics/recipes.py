"""Recipes against one another, each trained with several seeds: means, and intervals over seeds and lesions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.table_columns import refuse_other_images
from skinlesion.metrics.bootstrap import NO_WIDTH, Replicates, joined, lesion_draws
from skinlesion.metrics.compare import paths_of
from skinlesion.metrics.estimate import BootstrapConfig, Estimate, Estimates, estimates_to_dict, possible
from skinlesion.metrics.summary import metrics_statistic

FEWEST = 3  # training seeds with which a recipe has an interval


@dataclass(frozen=True)
class RecipeComparison:
    """Metrics of several recipes by name, and their differences from the reference, the first of them."""

    reference: str
    seeds: dict[str, int]  # number of training seeds
    recipes: dict[str, Estimates]
    differences: dict[str, Estimates]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "reference": self.reference,
            "seeds": self.seeds,
            "recipes": {name: estimates_to_dict(each) for name, each in self.recipes.items()},
            "differences": {name: estimates_to_dict(each, difference=True) for name, each in self.differences.items()},
        }


def read_recipe(pattern: str) -> list[Predictions]:
    """The predictions of each training seed: the files of a pattern, those of different images (folds) pooled.

    Raises:
        DataError: A file cannot be read, overlaps another in some images, or a fold has other seeds than the others.
    """
    folds: dict[frozenset[str], list[Predictions]] = {}
    for path in paths_of(pattern):
        table = Predictions.read(path)
        folds.setdefault(frozenset(table.image_id), []).append(table)
    counts = [len(runs) for runs in folds.values()]
    if len({*counts}) > 1 or sum(map(len, folds)) > len(frozenset().union(*folds)):
        raise DataError(
            f"recipes={pattern}: {counts} files of the same images; expected one of each training seed, as many in "
            "each fold"
        )
    return [Predictions.concatenate(runs).sorted() for runs in zip(*folds.values(), strict=True)]


def compare_recipes(
    recipes: Mapping[str, Sequence[Predictions]], config: BootstrapConfig, *, bins: int
) -> RecipeComparison:
    """Measure each recipe, and how each but the first differs from the first.

    A metric is the mean over the recipe's seeds. Its variance is that of the bootstrap over lesions, drawn alike for
    all runs, and that between the seeds divided by their number: what resampling lesions and seeds crosswise
    estimates, somewhat too high (Owen, Ann. Appl. Stat. 1:386-411 (2007), doi:10.1214/07-AOAS122), but without the
    third that resampling three seeds loses. Interval and p value are Student's, with Satterthwaite's degrees of freedom
    (Biometrics Bull. 2:110-114 (1946), doi:10.2307/3002019), since so few seeds say little of the spread between them.

    Args:
        recipes: By name, the reference first; predictions of the same images by the runs of each recipe.
        config: Resamples of the lesions, their seed, and the level.
        bins: Number of bins of the calibration errors.

    Raises:
        DataError: Two runs are of different images.
    """
    first = next(iter(recipes.values()))[0]
    for number, run in enumerate((run for runs in recipes.values() for run in runs), start=1):
        refuse_other_images(first, run, number=number)
    alike = {name: [replace(run, group_id=first.group_id) for run in runs] for name, runs in recipes.items()}
    measured = {name: [_measured(run, config, bins=bins) for run in runs] for name, runs in alike.items()}
    reference, *others = measured
    return RecipeComparison(
        reference,
        {name: len(runs) for name, runs in recipes.items()},
        {name: _estimates([runs], first.groups, config) for name, runs in measured.items()},
        {name: _estimates([measured[name], measured[reference]], first.groups, config) for name in others},
    )


def _measured(run: Predictions, config: BootstrapConfig, *, bins: int) -> Replicates:
    """Each metric of a run (1 + R,), of its lesions as they are and then resampled."""
    statistic, whole = metrics_statistic(run, bins=bins), np.ones((1, run.groups))
    return joined([statistic.resampled(weights) for weights in (whole, *lesion_draws(run.groups, config))])


def _estimates(recipes: Sequence[Sequence[Replicates]], lesions: int, config: BootstrapConfig) -> Estimates:
    """Of one recipe, or of the first less the second."""
    fewest = min(map(len, recipes))

    def estimate(name: str) -> Estimate:
        runs = [np.stack([run[name] for run in recipe]) for recipe in recipes]  # (S, 1 + R) each
        means = [each.mean(axis=0) for each in runs]
        values = means[0] if len(means) == 1 else means[0] - means[1]
        if np.isnan(values[0]):
            return Estimate(None, n=lesions, method="seeds", note="not computable")
        value = float(values[0])
        if fewest < FEWEST:
            note = f"{fewest} training seeds: no interval over seeds, which needs {FEWEST}"
            return Estimate(value, n=lesions, method="seeds", note=note)
        variances = np.array([np.nanvar(values[1:]), *(each[:, 0].var(ddof=1) / len(each) for each in runs)])
        freedom = np.array([max(lesions - 1, 1), *(len(each) - 1 for each in runs)])
        error = float(np.sqrt(variances.sum()))
        if error <= NO_WIDTH:
            return Estimate(value, n=lesions, method="seeds", note="all runs and resamples agree: no interval")
        degrees = float(variances.sum() ** 2 / (variances**2 / freedom).sum())
        half = float(stdtrit(degrees, (1 + config.level) / 2)) * error
        p = float(2 * stdtr(degrees, -abs(value) / error)) if len(runs) > 1 else None
        found = Estimate(value, value - half, value + half, n=lesions, method="seeds", p=p)
        return found.within(possible(name, difference=len(runs) > 1))

    return {name: estimate(name) for name in recipes[0][0]}
