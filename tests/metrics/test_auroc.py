"""Weighted AUROC and average precision against scikit-learn's, and the jackknife against leaving out rows."""

import numpy as np
import pytest
from conftest import CODES
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skinlesion.metrics.auroc import AurocStatistic
from skinlesion.metrics.bootstrap import without_each


def sample(
    seed: int, *, images: int, lesions: int, digits: int, torn: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities (rounded, so that they tie) and lesion numbers, all of them used."""
    rng = np.random.default_rng(seed)
    index = np.append(np.arange(lesions), rng.integers(0, lesions, images - lesions))
    diagnosis = rng.integers(0, 7, images if torn else lesions)
    actual = diagnosis if torn else diagnosis[index]
    values = np.exp(rng.normal(size=(images, 7)) + np.eye(7)[actual])
    return actual, (values / values.sum(axis=1, keepdims=True)).round(digits), index


def by_sklearn(actual: np.ndarray, values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    found, used = {}, weights > 0
    actual, values, weights = actual[used], values[used], weights[used]
    for k, code in enumerate(CODES):
        own = actual == k
        defined = 0 < own.sum() < len(own)
        found[f"auroc_{code}"] = roc_auc_score(own, values[:, k], sample_weight=weights) if defined else np.nan
        found[f"ap_{code}"] = average_precision_score(own, values[:, k], sample_weight=weights) if own.any() else np.nan
    for name in ("auroc", "ap"):
        found[f"macro_{name}"] = np.nanmean([found[f"{name}_{code}"] for code in CODES])
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), digits=st.sampled_from([1, 2, 9]), torn=st.booleans())
def test_the_areas_are_scikit_learns(seed: int, digits: int, torn: bool) -> None:
    actual, values, index = sample(seed, images=60, lesions=30, digits=digits, torn=torn)
    weights = np.random.default_rng(seed + 1).poisson(1, (3, 30)).astype(float)
    weights[:, :3] += 1  # at least a few lesions
    found = AurocStatistic(actual, values, index, codes=CODES).resampled(weights)
    for row, each in enumerate(weights):
        for name, value in by_sklearn(actual, values, each[index]).items():
            np.testing.assert_allclose(found[name][row], value, atol=1e-12, err_msg=name)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    digits=st.sampled_from([1, 2, 9]),
    lesions=st.integers(1, 25),
    torn=st.booleans(),
)
def test_the_jackknife_leaves_out_each_lesion(seed: int, digits: int, lesions: int, torn: bool) -> None:
    actual, values, index = sample(seed, images=40, lesions=lesions, digits=digits, torn=torn)
    ranking = AurocStatistic(actual, values, index, codes=CODES)
    quick, slow = ranking.jackknife(), without_each(ranking, lesions)
    assert quick.keys() == slow.keys()
    for name, expected in slow.items():
        np.testing.assert_allclose(quick[name], expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("lesion", [0, 7, 29])
def test_a_lesion_without_weight_is_not_there(lesion: int) -> None:
    actual, values, index = sample(3, images=60, lesions=30, digits=2)
    kept = index != lesion
    expected = by_sklearn(actual[kept], values[kept], np.ones(kept.sum()))
    found = AurocStatistic(actual, values, index, codes=CODES).jackknife()
    for name, value in expected.items():
        assert found[name][lesion] == pytest.approx(value, abs=1e-12)
