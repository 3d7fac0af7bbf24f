"""The paired test against every swap of a few lesions, scipy's binomial test, and its errors on equal models."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from conftest import CODES
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.compare import metric_differences
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.permutation import mcnemar, rank_within

SHARES = [0.03, 0.05, 0.11, 0.01, 0.11, 0.67, 0.02]  # of HAM10000, about


def models(lesions: int, *, rng: np.random.Generator, skill: float = 2.5, gain: float = 0.0) -> list[Predictions]:
    """Two models that err alike in a lesion: what they share of a lesion and of an image, and noise of their own."""
    diagnosis = rng.choice(7, lesions, p=SHARES)
    lesion = np.repeat(np.arange(lesions), rng.choice([1, 2, 3], lesions, p=[0.75, 0.2, 0.05]))
    easy = rng.normal(size=(lesions, 7))[lesion] + skill * np.eye(7)[diagnosis[lesion]]
    shared = easy + 0.5 * rng.normal(size=easy.shape)
    made = [shared + rng.normal(size=easy.shape) + more * np.eye(7)[diagnosis[lesion]] for more in (gain, 0.0)]
    return [
        Predictions.build(
            [f"I{k:05d}" for k in range(len(lesion))],
            [f"H{k}" for k in lesion],
            probabilities=np.exp(each) / np.exp(each).sum(axis=1, keepdims=True),
            actual=[CODES[k] for k in diagnosis[lesion]],
        )
        for each in made
    ]


def test_the_p_values_are_those_of_all_swaps() -> None:
    first, second = models(9, rng=np.random.default_rng(3), skill=1.0)
    actual, group = first.targets, first.group
    probabilities = np.stack([first.probabilities, second.probabilities])
    known = sorted(set(actual))

    def differences(swap: np.ndarray) -> list[float]:
        own, other = (
            probabilities[swap[group], np.arange(len(group))],
            probabilities[1 - swap[group], range(len(group))],
        )
        macro = [np.mean(sk.f1_score(actual, each.argmax(1), labels=range(7), average=None, zero_division=0)[
            [k in known or k in each.argmax(1) for k in range(7)]]) for each in (own, other)]  # fmt: skip
        truth = np.eye(7)[actual]
        means = [[np.mean(each.argmax(1) == actual), ((each - truth) ** 2).sum(1).mean()] for each in (own, other)]
        return [means[0][0] - means[1][0], macro[0] - macro[1], means[0][1] - means[1][1]]

    everything = np.array([differences(np.array(swap)) for swap in product((0, 1), repeat=9)])  # all equally likely
    found = metric_differences(first, second, BootstrapConfig(10_000, 1, 0.8), bins=10)
    for name, column in zip(("accuracy", "macro_f1", "brier"), everything.T, strict=True):
        value, beyond = column[0], np.abs(column) >= abs(column[0]) - 1e-7
        assert found[name].value == pytest.approx(value, abs=1e-7)
        assert found[name].p == pytest.approx(beyond.mean(), abs=0.0 if name == "accuracy" else 0.015), name
        if name == "brier":
            continue  # beyond the swaps, where the interval is narrower
        assert found[name].p > 0.2
        reach = found[name].high - found[name].value  # of the swaps a fifth lies beyond
        assert (np.abs(column) > reach + 1e-6).mean() < 0.22
        assert (np.abs(column) >= reach - 1e-6).mean() > 0.18


@pytest.mark.parametrize("known_to", [2, 1])
def test_all_lesions_of_a_patient_are_swapped_together(known_to: int) -> None:
    """A table with patients gives what the same table gives whose lesions are the patients."""
    made = models(30, rng=np.random.default_rng(4), skill=1.0)
    patient = [f"P{int(each[1:]) // 3}" if int(each[1:]) < 24 else "" for each in made[0].lesion_id]
    patients = np.array([own or lesion for own, lesion in zip(patient, made[0].lesion_id, strict=True)], dtype=object)
    grouped = [replace(each, group_id=patients) if k < known_to else each for k, each in enumerate(made)]
    whole = [replace(each, lesion_id=patients) for each in made]
    found = metric_differences(*grouped, BootstrapConfig(99), bins=10)
    assert found == metric_differences(*whole, BootstrapConfig(99), bins=10)
    assert found["accuracy"].n == len(set(patients)) == 14


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 1), (5, 5), (12, 3), (3, 17), (40, 20)])
def test_accuracy_has_mcnemars_exact_test(only_first: int, only_second: int) -> None:
    differences = np.array([1] * only_first + [-1] * only_second + [0] * 50)
    found = mcnemar(differences, images=len(differences), level=0.9)
    binomial = stats.binomtest(only_first, only_first + only_second)
    assert found.p == pytest.approx(binomial.pvalue, rel=1e-12)
    assert (found.low > 0 or found.high < 0) == (binomial.pvalue < 0.1)


def test_lesions_of_several_images_are_swapped_whole() -> None:
    differences = np.array([2, 2, 1, -1, 0])
    sums = np.abs(np.array(list(product((-1, 1), repeat=5))) @ differences)
    found = mcnemar(differences, images=10, level=0.5)
    assert found.p == (sums >= 4).mean()
    same = mcnemar(np.zeros(4, dtype=int), images=4, level=0.95)
    assert (same.value, same.low, same.high, same.p) == (0, None, None, 1)


def test_the_interval_of_a_sum_holds_the_shifts_that_sign_flips_do_not_refute() -> None:
    rng = np.random.default_rng(8)
    differences = rng.choice([-1, 0, 1, 2], 400, p=[0.1, 0.5, 0.35, 0.05])
    found, images = mcnemar(differences, images=500, level=0.95), 500
    flips = rng.choice([-1.0, 1.0], (4000, 400))
    for shift, inside in ((found.low - 0.01, 0), (found.low + 0.01, 1), (found.high - 0.01, 1), (found.high + 0.01, 0)):
        centred = differences - shift * images / 400
        beyond = np.abs(flips @ centred) >= abs(centred.sum())
        assert (beyond.mean() >= 0.05) == inside


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), gain=st.sampled_from([0.0, 0.6, 1.2]), level=st.sampled_from([0.9, 0.95]))
def test_zero_is_outside_exactly_where_p_is_small(seed: int, gain: float, level: float) -> None:
    first, second = models(60, rng=np.random.default_rng(seed), gain=gain)
    found = metric_differences(first, second, BootstrapConfig(199, 1, level), bins=10)
    known = {name: each for name, each in found.items() if each.low is not None}
    assert len(known) > 15
    for name, each in known.items():
        assert (each.low > 0 or each.high < 0) == (each.p < round(1 - level, 9)), (name, each)
    back = metric_differences(second, first, BootstrapConfig(199, 1, level), bins=10)
    for name, each in known.items():
        assert back[name].p == pytest.approx(each.p)
        assert back[name].high == pytest.approx(-each.low, abs=1e-9)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), lesions=st.sampled_from([8, 14, 20]))
def test_no_interval_leaves_what_a_difference_can_be(seed: int, lesions: int) -> None:
    first, second = models(lesions, rng=np.random.default_rng(seed), skill=1.0, gain=1.0)
    found = metric_differences(first, second, BootstrapConfig(199), bins=10)
    free = {name for name in found if name.split("_")[0] in ("nll", "intercept", "slope", "oe")}
    for name, each in found.items():
        largest = 2 if name == "brier" else 1  # all but these are proportions, areas or mean errors of at most 1
        assert each.value is None or name in free or abs(each.value) <= largest, name
        assert each.low is None or name in free or -largest <= each.low <= each.high <= largest, (name, each)
        assert each.low is None or each.low - 1e-9 <= each.value <= each.high + 1e-9, (name, each)
    same = metric_differences(*models(12, rng=np.random.default_rng(1)), BootstrapConfig(199), bins=10)
    assert (same["recall_akiec"].value, same["recall_akiec"].high) == (1, 1)  # of one lesion, half the swaps reach it


def test_ranks_within_each_model_keep_the_areas() -> None:
    first, second = models(80, rng=np.random.default_rng(5))
    both = np.concatenate([first.probabilities, second.probabilities])
    ranks = rank_within(both, 2)
    assert ranks[: len(first), 0].tolist() == stats.rankdata(first.probabilities[:, 0].astype(float)).tolist()
    is_nevus = first.targets == 5
    for rows, each in ((slice(0, len(first)), first), (slice(len(first), None), second)):
        assert sk.roc_auc_score(is_nevus, ranks[rows, 5]) == sk.roc_auc_score(is_nevus, each.probabilities[:, 5])
    found = metric_differences(first, second, BootstrapConfig(99), bins=10)
    areas = [sk.roc_auc_score(is_nevus, each.probabilities[:, 5]) for each in (first, second)]
    assert found["auroc_nv"].value == pytest.approx(areas[0] - areas[1], abs=1e-12)


@pytest.mark.parametrize("tables", [60, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_equal_models_differ_as_seldom_as_the_level_says(tables: int) -> None:
    rng, level = np.random.default_rng(0), 0.9
    names = ("accuracy", "macro_f1", "balanced_accuracy", "macro_auroc", "brier", "recall_mel")
    rejected = dict.fromkeys(names, 0)
    for _ in range(tables):
        found = metric_differences(*models(100, rng=rng), BootstrapConfig(99, int(rng.integers(1e6)), level), bins=10)
        for name in names:
            each = found[name]
            rejected[name] += each.low is not None and not each.low <= 0 <= each.high
    most = stats.binom.ppf(0.9999, tables, 1 - level)
    least = stats.binom.ppf(0.0001, tables, 1 - level)
    assert max(rejected.values()) <= most, rejected
    assert min(rejected[name] for name in names[1:5]) >= least, rejected
