"""Bootstrap intervals against every possible resample of a few lesions, a loop over lesions, and scipy's bootstrap."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from conftest import CODES
from scipy import stats
from sklearn import metrics as sk

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.bootstrap import (
    GROUPS,
    ONE_BY_ONE,
    SumStatistic,
    bca_tails,
    bootstrap,
    lesion_draws,
    without_each,
)
from skinlesion.metrics.challenge import challenge_scores
from skinlesion.metrics.decision import flag_metrics, set_coverage
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.metrics.selective import reject_option
from skinlesion.metrics.summary import metrics_statistic, metrics_with_ci


def table_of(lesions: list[str], actual: list[int], predicted: list[int]) -> Predictions:
    names = [f"I{number:05d}" for number in range(len(lesions))]
    values = np.eye(7)[predicted]
    return Predictions.build(names, lesions, probabilities=values, actual=[CODES[k] for k in actual])


def random_table(lesions: int, *, seed: int) -> Predictions:
    """Build a table of lesions with one to three images, which tend to be right or wrong together."""
    rng = np.random.default_rng(seed)
    diagnosis = rng.choice(7, lesions, p=[0.03, 0.05, 0.11, 0.01, 0.11, 0.67, 0.02])
    guess = np.where(rng.random(lesions) < 0.7, diagnosis, rng.integers(0, 7, lesions))
    number = np.repeat(np.arange(lesions), rng.integers(1, 4, lesions))
    return table_of([f"H{k}" for k in number], diagnosis[number].tolist(), guess[number].tolist())


def judge(actual: np.ndarray, predicted: np.ndarray) -> list[float]:
    recall = sk.recall_score(actual, predicted, labels=np.unique(actual), average="macro", zero_division=0)
    return [float(np.mean(actual == predicted)), float(sk.f1_score(actual, predicted, average="macro")), float(recall)]


NAMES = ["accuracy", "macro_f1", "balanced_accuracy"]


def intervals(table: Predictions, *, resamples: int, seed: int, level: float) -> dict[str, list[float]]:
    config = BootstrapConfig(resamples, seed, level, "percentile")
    found = bootstrap(metrics_statistic(table, bins=10), config, lesions=table.lesions)
    assert {each.n for each in found.values()} == {len(set(table.group))}
    return {name: [found[name].low, found[name].high] for name in NAMES}


def test_intervals_fit_the_distribution_over_all_resamples() -> None:
    lesions = [0, 0, 0, 1, 2, 2, 3]
    table = table_of([f"H{k}" for k in lesions], [5, 5, 5, 4, 5, 5, 2], [5, 5, 4, 4, 2, 5, 5])
    actual, predicted = table.targets, table.predicted_targets
    rows = [np.flatnonzero(np.array(lesions) == k) for k in range(4)]
    chosen = [np.concatenate([rows[k] for k in draw]) for draw in product(range(4), repeat=4)]
    exact = np.array([judge(actual[each], predicted[each]) for each in chosen])  # all 256 are equally likely
    for level in (0.3, 0.5, 0.8):
        found = intervals(table, resamples=20_000, seed=1, level=level)
        assert list(found) == NAMES
        for column, name in enumerate(NAMES):
            for end, share in zip(found[name], ((1 - level) / 2, (1 + level) / 2), strict=True):
                below, up_to = (exact[:, column] < end - 1e-9).mean(), (exact[:, column] <= end + 1e-9).mean()
                assert below - 0.02 <= share <= up_to + 0.02, (level, name)


def test_intervals_are_those_of_a_loop_over_lesions() -> None:
    table = random_table(150, seed=2)
    actual, predicted = table.targets, table.predicted_targets
    rows = [np.flatnonzero(table.lesion_id == name) for name in sorted(set(table.lesion_id))]
    rng = np.random.default_rng(3)
    loop = []
    for _ in range(400):
        each = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        loop.append(judge(actual[each], predicted[each]))
    ends = np.quantile(loop, [0.05, 0.95], axis=0).T
    found = intervals(table, resamples=4000, seed=4, level=0.9)
    spread = np.std(loop, axis=0)
    for column, name in enumerate(NAMES):
        # the standard error of a 5 % quantile of 400 normal numbers is 0.11 standard deviations
        np.testing.assert_allclose(found[name], ends[column], atol=0.4 * spread[column])


def test_images_of_one_lesion_stay_together() -> None:
    table = random_table(80, seed=5)
    thrice = Predictions.concatenate([replace(table, image_id=table.image_id + copy) for copy in "abc"])
    settings = {"resamples": 500, "seed": 6, "level": 0.95}
    again, once = intervals(thrice, **settings), intervals(table, **settings)
    for name in NAMES:
        assert again[name] == pytest.approx(once[name], abs=1e-12)  # copies of images tell nothing new
    apart = replace(thrice, lesion_id=thrice.image_id)
    width = {name: np.ptp(ends) for name, ends in intervals(table, **settings).items()}
    narrow = {name: np.ptp(ends) for name, ends in intervals(apart, **settings).items()}
    assert narrow["accuracy"] < 0.75 * width["accuracy"]


def test_unknown_lesions_are_a_lesion_each() -> None:
    table = random_table(40, seed=7)
    settings = {"resamples": 300, "seed": 8, "level": 0.9}
    unknown = replace(table, lesion_id=np.full(len(table), "", dtype=object))
    assert intervals(unknown, **settings) == intervals(replace(table, lesion_id=table.image_id), **settings)


def test_the_same_seed_gives_the_same_intervals_in_any_order_of_rows() -> None:
    table = random_table(60, seed=9)
    mixed = table.select(np.random.default_rng(10).permutation(len(table)))
    first = intervals(table, resamples=200, seed=11, level=0.95)
    assert intervals(mixed, resamples=200, seed=11, level=0.95) == first
    assert intervals(table, resamples=200, seed=12, level=0.95) != first


def test_a_lower_level_lies_inside() -> None:
    table = random_table(60, seed=13)
    wide, narrow = (intervals(table, resamples=500, seed=14, level=level) for level in (0.95, 0.5))
    for name in NAMES:
        assert wide[name][0] < narrow[name][0] < narrow[name][1] < wide[name][1]


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.9), (10, 0.0), (10, 1.0), (10, 95.0)])
def test_wrong_settings_are_refused(resamples: int, level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals(table_of(["H"], [5], [5]), resamples=resamples, seed=0, level=level)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_of_a_mean_is_scipys(method: str) -> None:
    sample = np.random.default_rng(2).lognormal(size=40)
    mean = SumStatistic(np.stack([sample, np.ones(40)], axis=1), lambda sums: {"mean": sums[:, 0] / sums[:, 1]})
    found = bootstrap(mean, BootstrapConfig(20_000, 3, 0.9, method), lesions=40)["mean"]
    name = {"percentile": "percentile", "bca": "BCa"}[method]
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, confidence_level=0.9, method=name, rng=np.random.default_rng(4)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.03 * sample.std())


def test_the_correction_is_that_of_the_formula() -> None:
    replicates, left_out = np.arange(100.0), np.array([1.0, 2.0, 4.0, 9.0])
    influence = left_out.mean() - left_out
    a = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    z0 = stats.norm.ppf(0.405)  # 40 below and one equal of 100
    z = z0 + stats.norm.ppf([0.05, 0.95])
    expected = stats.norm.cdf(z0 + z / (1 - a * z))
    assert bca_tails(40.0, replicates, left_out, level=0.9) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(("right", "of"), [(0, 1), (0, 3), (4, 4), (0, 24), (27, 27)])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_proportion_on_which_all_resamples_agree_has_the_exact_interval(right: int, of: int, method: str) -> None:
    table = table_of([f"H{k}" for k in range(of)], [5] * of, [5 if right else 4] * of)
    found = metrics_with_ci(table, BootstrapConfig(100, 1, 0.95, method), bins=10)
    exact = stats.binomtest(right, of).proportion_ci(0.95, "exact")
    for name in ("accuracy", "recall_nv"):
        assert (found[name].low, found[name].high) == pytest.approx((exact.low, exact.high), abs=1e-12)
        assert found[name].method == "clopper_pearson"
        assert f"Clopper-Pearson interval (n = {of})" in found[name].note
    assert found["accuracy"].to_dict()["method"] == "clopper_pearson"
    for each in found.values():
        assert each.low is None or each.high - each.low > 1e-6
    assert found["macro_f1"].low is None, "no proportion"
    assert "no interval" in found["macro_f1"].note


def test_exact_intervals_count_lesions_and_take_the_level() -> None:
    table = table_of(["A", "A", "A", "B"], [4, 4, 4, 5], [4, 4, 5, 5])  # a share of one lesion is right
    found = metrics_with_ci(table, BootstrapConfig(100, 1, 0.8, "bca"), bins=10)["recall_mel"]
    ends = stats.beta.ppf([0.1, 0.9], [2 / 3, 5 / 3], [4 / 3, 1 / 3])
    assert (found.value, found.low, found.high) == pytest.approx((2 / 3, *ends))
    pairs = table_of(["A", "A", "B", "B"], [5] * 4, [5] * 4)
    assert metrics_with_ci(pairs, BootstrapConfig(100), bins=10)["accuracy"].low == pytest.approx(0.025 ** (1 / 2))


def test_a_proportion_that_few_resamples_have_gets_the_exact_interval() -> None:
    table = table_of([f"H{k}" for k in range(41)], [4] + [5] * 40, [4] * 2 + [5] * 39)
    found = metrics_with_ci(table, BootstrapConfig(200), bins=10)
    assert (found["recall_mel"].low, found["recall_mel"].high) == pytest.approx((0.025, 1))  # absent from 37 %
    assert found["precision_mel"].low == pytest.approx(stats.binomtest(1, 2).proportion_ci(0.95, "exact").low)
    assert found["precision_nv"].method == "clopper_pearson"
    assert found["recall_nv"].method == "bca"
    assert found["f1_mel"].low is None


@pytest.mark.parametrize("lesions", [7, 29, 30])
def test_intervals_of_few_lesions_are_exact_or_marked(lesions: int) -> None:
    rng = np.random.default_rng(1)
    actual = np.repeat([3, 5], [lesions, 60])
    predicted = np.where(rng.random(len(actual)) < 0.7, actual, 8 - actual)
    found = metrics_with_ci(
        table_of([f"H{k}" for k in range(len(actual))], actual, predicted), BootstrapConfig(100), bins=10
    )
    exact = stats.binomtest(int((predicted[:lesions] == 3).sum()), lesions).proportion_ci(0.95, "exact")
    is_exact = (found["recall_df"].low, found["recall_df"].high) == pytest.approx((exact.low, exact.high))
    assert is_exact == ("†" in found["recall_df"].text()) == (lesions < 30)
    for name in ("f1_df", "auroc_df", "ap_df"):
        assert ("‡" in found[name].text()) == (lesions < 30)
        assert found[name].to_dict().get("few") == (lesions if lesions < 30 else None)
        assert Estimate.from_dict(found[name].to_dict()) == replace(found[name], p=None)
    assert not {"†", "‡"} & set(found["f1_nv"].text() + found["recall_nv"].text())


def test_rates_sets_risks_and_challenge_scores_are_never_certain() -> None:
    table = table_of([f"H{k}" for k in range(12)], [4] * 4 + [5] * 8, [4] * 4 + [5] * 8)
    config = BootstrapConfig(200)
    flags = flag_metrics(table, table.targets == 4, "mel", config).metrics
    assert (flags["sensitivity"].low, flags["sensitivity"].high) == pytest.approx((0.3976, 1), abs=1e-4)
    sets = set_coverage(table, np.ones((12, 7), dtype=bool), config).overall.metrics
    sure = np.arange(12.0)
    kept = reject_option(table, sure, validation=sure, share=0.5, config=config).metrics
    risk = kept["risk"]
    assert (risk.low, risk.high) == pytest.approx((0, 1 - 0.025 ** (1 / 6)))
    scores = challenge_scores(table, config)
    assert scores.per_category["MEL"]["sensitivity"].low == flags["sensitivity"].low
    assert scores.per_category["BCC"]["ppv"].low is None, "1 by convention"
    rates = [*flags.values(), *sets.values(), *kept.values(), *scores.per_category["MEL"].values()]
    assert all(each.low is None or each.high - each.low > 1e-6 for each in rates)
    assert sets["size"].low is None
    assert sets["coverage"].low == pytest.approx(0.025 ** (1 / 12))


def test_very_many_lesions_are_left_out_in_groups() -> None:
    """In a number of computations that does not grow, to the acceleration and the variance that theory knows."""
    lesions, calls = ONE_BY_ONE + 10_000, 0
    values = np.random.default_rng(2).lognormal(size=lesions)

    class Mean(SumStatistic):
        def resampled(self, weights: np.ndarray) -> dict[str, np.ndarray]:
            nonlocal calls
            calls += len(weights)
            return super().resampled(weights)

    mean = Mean(np.stack([values, np.ones(lesions)], axis=1), lambda sums: {"mean": sums[:, 0] / sums[:, 1]})
    found = without_each(mean, lesions)["mean"]
    assert calls == len(found) == GROUPS
    assert (GROUPS - 1) * found.var() == pytest.approx(values.var() / lesions, rel=0.1)
    replicates = np.random.default_rng(3).normal(values.mean(), 1, 2000)
    tails = (found, mean.jackknife()["mean"], np.arange(3.0))  # the last one has no acceleration
    grouped, exact, plain = (bca_tails(values.mean(), replicates, each, level=0.95) for each in tails)
    assert grouped == pytest.approx(exact, abs=2e-4)
    assert np.abs(np.subtract(plain, exact)).min() > 1e-3


def test_fewer_lesions_are_left_out_one_by_one() -> None:
    values = np.random.default_rng(2).normal(size=700)
    mean = SumStatistic(np.stack([values, np.ones(700)], axis=1), lambda sums: {"mean": sums[:, 0] / sums[:, 1]})
    expected = [np.delete(values, lesion).mean() for lesion in range(700)]
    np.testing.assert_allclose(without_each(mean, 700)["mean"], expected, atol=1e-12)


def test_draws_are_the_same_however_many_are_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = BootstrapConfig(resamples=50)
    whole = np.concatenate([*lesion_draws(70, config)])
    monkeypatch.setattr("skinlesion.metrics.bootstrap._MOST_COUNTS", 7 * 70)
    blocks = [*lesion_draws(70, config)]
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
