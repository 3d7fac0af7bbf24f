"""Recipes of several seeds against Welch's test, the formula for a mean, and their coverage of a known difference."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.recipes import compare_recipes, read_recipe

FAST = BootstrapConfig(400, 1, 0.95)


def run_of(right: np.ndarray) -> Predictions:
    """A run that is right in some of the images, a lesion each."""
    probabilities = np.zeros((len(right), 7))
    probabilities[np.arange(len(right)), np.where(right, 5, 4)] = 1
    names = [f"I{k:05d}" for k in range(len(right))]
    return Predictions.build(names, names, probabilities=probabilities, actual=["nv"] * len(right))


def runs_of(rng: np.random.Generator, shares: np.ndarray, lesions: int) -> list[Predictions]:
    """A run for each share of right images; a lesion is as hard for all runs, with some noise."""
    return [run_of(rng.permutation(lesions) < round(share * lesions)) for share in shares]


def test_the_interval_adds_the_variances_of_lesions_and_seeds() -> None:
    rng = np.random.default_rng(1)
    recipes = {
        "a": runs_of(rng, np.array([0.70, 0.74, 0.75, 0.72]), 300),
        "b": runs_of(rng, np.array([0.80, 0.78, 0.83]), 300),
    }
    found = compare_recipes(recipes, BootstrapConfig(6000, 1, 0.9), bins=10)
    right = {name: np.stack([each.predicted == "nv" for each in runs]) for name, runs in recipes.items()}
    assert found.recipes["a"]["accuracy"].value == pytest.approx(right["a"].mean())
    each = found.differences["b"]["accuracy"]
    lesion = right["b"].mean(axis=0) - right["a"].mean(axis=0)
    parts = [lesion.var() / 300, *(right[name].mean(axis=1).var(ddof=1) / len(right[name]) for name in "ab")]
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / 299 + parts[1] ** 2 / 3 + parts[2] ** 2 / 2)
    error = np.sqrt(sum(parts))
    assert each.value == pytest.approx(lesion.mean())
    assert each.high - each.value == pytest.approx(stats.t.ppf(0.95, degrees) * error, rel=0.03)
    assert each.value - each.low == pytest.approx(each.high - each.value)
    assert each.p == pytest.approx(2 * stats.t.sf(each.value / error, degrees), rel=0.3)


def test_where_lesions_say_nothing_it_is_welchs() -> None:
    shares = {"a": np.array([0.2, 0.4, 0.6]), "b": np.array([0.5, 0.9, 0.6, 0.8])}
    everything = np.arange(1000) / 1000
    recipes = {name: [run_of(everything < share) for share in each] for name, each in shares.items()}
    each = compare_recipes(recipes, BootstrapConfig(1000), bins=10).differences["b"]["accuracy"]
    own = compare_recipes({"a": recipes["a"]}, BootstrapConfig(1000), bins=10).recipes["a"]["accuracy"]
    assert (own.low, own.high) == pytest.approx(
        (0, stats.ttest_1samp(shares["a"], 0).confidence_interval()[1]), abs=0.01
    )
    welch = stats.ttest_ind(shares["b"], shares["a"], equal_var=False)
    ends = welch.confidence_interval(0.95)
    assert (each.value, each.low, each.high) == pytest.approx((0.3, *ends), abs=0.01)
    assert each.p == pytest.approx(welch.pvalue, abs=0.01)


def test_fewer_than_three_seeds_have_no_interval() -> None:
    rng = np.random.default_rng(2)
    recipes = {"a": runs_of(rng, np.array([0.7, 0.75, 0.72]), 80), "b": runs_of(rng, np.array([0.8, 0.7]), 80)}
    found = compare_recipes(recipes, FAST, bins=10)
    assert found.seeds == {"a": 3, "b": 2}
    assert found.recipes["a"]["accuracy"].low is not None
    for each in (found.recipes["b"]["accuracy"], found.differences["b"]["accuracy"]):
        assert (each.low, each.high, each.p) == (None, None, None)
        assert "2 training seeds" in each.note
    with pytest.raises(DataError, match="80 and 79 images"):
        compare_recipes({"a": recipes["a"], "b": runs_of(rng, np.array([0.8] * 3), 79)}, FAST, bins=10)


def test_a_pattern_gives_a_table_a_seed_over_its_folds(tmp_path: Path) -> None:
    whole = [run_of(np.arange(40) % (seed + 2) > 0) for seed in range(3)]
    for seed, run in enumerate(whole):
        for fold in range(2):
            run.select(np.arange(fold, 40, 2)).write(tmp_path / f"fold{fold}" / f"seed{seed}" / "t.csv")
    runs = read_recipe(str(tmp_path / "*" / "*" / "t.csv"))
    for run, expected in zip(runs, whole, strict=True):
        assert run.image_id.tolist() == expected.image_id.tolist()
        np.testing.assert_array_equal(run.probabilities, expected.probabilities)
    (tmp_path / "fold1" / "seed2" / "t.csv").unlink()
    with pytest.raises(DataError, match=r"\[3, 2\] files of the same images"):
        read_recipe(str(tmp_path / "*" / "*" / "t.csv"))


@pytest.mark.parametrize("recipes", [25, pytest.param(1500, marks=pytest.mark.exhaustive)])
def test_recipes_that_are_equal_differ_as_seldom_as_the_level_says(recipes: int) -> None:
    """A percentile interval of three seeds drawn with replacement misses zero too often."""
    rng, missed, naive = np.random.default_rng(3), 0, 0
    for _ in range(recipes):
        hard = rng.normal(size=150)

        def three(hard: np.ndarray = hard) -> list[Predictions]:
            return [run_of(hard + rng.normal(size=150) < 0.8 + 0.3 * rng.normal()) for _ in range(3)]

        pair = {"a": three(), "b": three()}
        each = compare_recipes(pair, BootstrapConfig(200, int(rng.integers(1e6)), 0.9), bins=10).differences["b"]
        missed += not each["accuracy"].low <= 0 <= each["accuracy"].high
        right = np.stack([[run.predicted == "nv" for run in runs] for runs in pair.values()])  # (2, 3, L)
        drawn = []
        for _ in range(200):
            lesions, seeds = rng.integers(0, 150, 150), rng.integers(0, 3, (2, 3))
            means = [right[k][seeds[k]][:, lesions].mean() for k in (0, 1)]
            drawn.append(means[1] - means[0])
        low, high = np.quantile(drawn, [0.05, 0.95])
        naive += not low <= 0 <= high
    assert missed <= stats.binom.ppf(0.999, recipes, 0.1)
    if recipes > 1000:
        assert naive > stats.binom.ppf(0.999, recipes, 0.1)
