"""Bootstrap intervals against every possible resample of a few lesions, and against a loop over lesions."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from skinlesion.inference.predictions import build_table, predicted_targets, targets
from skinlesion.metrics.with_ci import with_intervals
from skinlesion.taxonomy import CODES


def table_of(lesions: list[str], actual: list[int], predicted: list[int]) -> pd.DataFrame:
    names = [f"I{number:05d}" for number in range(len(lesions))]
    values = np.eye(7)[predicted]
    return build_table(names, lesions, probabilities=values, actual=[CODES[k] for k in actual])


def random_table(lesions: int, *, seed: int) -> pd.DataFrame:
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


def intervals(table: pd.DataFrame, *, resamples: int, seed: int, level: float) -> dict[str, list[float]]:
    settings = {"resamples": resamples, "seed": seed, "level": level}
    found = with_intervals(table, **settings, method="percentile", bins=10)
    return {name: [found[name]["low"], found[name]["high"]] for name in NAMES}


def test_intervals_fit_the_distribution_over_all_resamples() -> None:
    lesions = [0, 0, 0, 1, 2, 2, 3]
    table = table_of([f"H{k}" for k in lesions], [5, 5, 5, 4, 5, 5, 2], [5, 5, 4, 4, 2, 5, 5])
    actual, predicted = targets(table), predicted_targets(table)
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
    actual, predicted = targets(table), predicted_targets(table)
    rows = list(table.groupby("lesion_id").indices.values())
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
    thrice = pd.concat([table.assign(image_id=table["image_id"] + copy) for copy in "abc"], ignore_index=True)
    settings = {"resamples": 500, "seed": 6, "level": 0.95}
    again, once = intervals(thrice, **settings), intervals(table, **settings)
    for name in NAMES:
        assert again[name] == pytest.approx(once[name], abs=1e-12)  # copies of images tell nothing new
    apart = thrice.assign(lesion_id=thrice["image_id"])
    width = {name: np.ptp(ends) for name, ends in intervals(table, **settings).items()}
    narrow = {name: np.ptp(ends) for name, ends in intervals(apart, **settings).items()}
    assert narrow["accuracy"] < 0.75 * width["accuracy"]


def test_unknown_lesions_are_a_lesion_each() -> None:
    table = random_table(40, seed=7)
    settings = {"resamples": 300, "seed": 8, "level": 0.9}
    assert intervals(table.assign(lesion_id=""), **settings) == intervals(
        table.assign(lesion_id=table["image_id"]), **settings
    )


def test_the_same_seed_gives_the_same_intervals_in_any_order_of_rows() -> None:
    table = random_table(60, seed=9)
    mixed = table.sample(frac=1, random_state=10, ignore_index=True)
    first = intervals(table, resamples=200, seed=11, level=0.95)
    assert intervals(mixed, resamples=200, seed=11, level=0.95) == first
    assert intervals(table, resamples=200, seed=12, level=0.95) != first


def test_a_lower_level_lies_inside() -> None:
    table = random_table(60, seed=13)
    wide, narrow = (intervals(table, resamples=500, seed=14, level=level) for level in (0.95, 0.5))
    for name in NAMES:
        assert wide[name][0] < narrow[name][0] < narrow[name][1] < wide[name][1]


@pytest.mark.parametrize(("predicted", "expected"), [(5, 1.0), (4, 0.0)])
def test_one_lesion_has_no_spread(predicted: int, expected: float) -> None:
    table = table_of(["H"], [5], [predicted])
    found = intervals(table, resamples=10, seed=0, level=0.95)
    assert found == {name: [expected, expected] for name in NAMES}


def test_a_perfect_table_has_no_spread() -> None:
    table = table_of([f"H{k}" for k in range(14)], [*range(7)] * 2, [*range(7)] * 2)
    assert intervals(table, resamples=50, seed=0, level=0.9) == {name: [1.0, 1.0] for name in NAMES}


@pytest.mark.parametrize(("resamples", "level"), [(0, 0.9), (10, 0.0), (10, 1.0), (10, 95.0)])
def test_wrong_settings_are_refused(resamples: int, level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals(table_of(["H"], [5], [5]), resamples=resamples, seed=0, level=level)
