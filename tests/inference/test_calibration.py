"""Temperature, bias and vector scaling against scipy's optimisers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from skinlesion.errors import DataError
from skinlesion.inference.calibration import (
    balanced_scores,
    calibrated,
    fit_bias,
    fit_temperature,
    fit_vector,
    tempered,
    vector_scaled,
)


def sample(seed: int, images: int = 300, *, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure, and the actual classes, drawn from the flatter truth."""
    rng = np.random.default_rng(seed)
    truth = softmax(1.5 * rng.normal(size=(images, 7)), axis=1)
    actual = (truth.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1).clip(max=6)
    return softmax(sharp * np.log(truth), axis=1), actual


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.1, 10))
def test_calibration_keeps_what_it_must(seed: int, temperature: float) -> None:
    values, actual = sample(seed)
    np.testing.assert_allclose(tempered(values, 1.0), values, atol=1e-11)
    warm = tempered(values, temperature)
    np.testing.assert_array_equal(warm.argmax(axis=1), values.argmax(axis=1))
    np.testing.assert_allclose(warm.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(vector_scaled(values, np.ones(7), np.zeros(7)), values, atol=1e-11)
    assert fit_temperature(tempered(values, fit_temperature(values, actual)), actual) == pytest.approx(1, abs=1e-5)


def test_the_temperature_is_scipys() -> None:
    values, actual = sample(1, 2000)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(np.log(values) / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(actual)), actual].mean())

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(values, actual) == pytest.approx(expected, rel=1e-4)
    assert fit_temperature(values, actual) == pytest.approx(2, rel=0.1)  # as sharp as it was made


def test_vector_scaling_is_scipys() -> None:
    values, actual = sample(2)

    def loss(found: np.ndarray) -> float:
        scaled = log_softmax(np.log(values) * found[:7] + found[7:], axis=1)
        ridge = ((found[:7] - 1) ** 2).sum() + (found[7:] ** 2).sum()
        return -float(scaled[np.arange(len(actual)), actual].sum()) + ridge / 2

    expected = minimize(loss, np.append(np.ones(7), np.zeros(7)), method="BFGS", options={"gtol": 1e-3}).x
    found = fit_vector(values, actual)
    np.testing.assert_allclose([*found["weight"], *found["bias"]], expected, atol=1e-3)


def test_one_bias_a_diagnosis_is_scipys_and_undoes_a_shift_of_prevalence() -> None:
    values, actual = sample(7, 4000, sharp=1.0)
    weights = np.array([8.0, 3.0, 1.0, 1.0, 0.5, 1.0, 2.0])  # as class weights of a loss shift what a model says
    shifted = values * weights / (values * weights).sum(axis=1, keepdims=True)

    def loss(found: np.ndarray) -> float:
        scaled = log_softmax(np.log(shifted) * (1 + found[0]) + found[1:], axis=1)
        return -float(scaled[np.arange(len(actual)), actual].sum()) + (found**2).sum() / 2

    expected = minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-2}).x
    found = fit_bias(shifted, actual)
    np.testing.assert_allclose(found["weight"], np.full(7, 1 + expected[0]), atol=1e-3)
    np.testing.assert_allclose(found["bias"], expected[1:], atol=1e-3)
    undone = vector_scaled(shifted, **found)
    np.testing.assert_allclose(undone.mean(axis=0), np.bincount(actual, minlength=7) / 4000, atol=2e-3)
    np.testing.assert_allclose(np.diff(found["bias"]), -np.diff(np.log(weights)), atol=0.3)
    np.testing.assert_array_equal(calibrated(shifted, {"method": "bias", "bias": found}), undone)


def test_balanced_scores_are_the_posterior_of_equal_prevalence() -> None:
    likelihood, prior = np.array([[0.2, 0.5, 0.4], [0.9, 0.1, 0.3]]), np.array([0.7, 0.1, 0.2])
    posterior = likelihood * prior / (likelihood * prior).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(balanced_scores(posterior, prior), likelihood / likelihood.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("rows", [0, 1])
def test_scaling_of_too_little_is_refused(rows: int) -> None:
    values, actual = sample(3)
    with pytest.raises(DataError, match="not computable"):
        fit_temperature(values[:rows], actual[:rows])
    with pytest.raises(DataError, match="not computable"):
        fit_vector(values[:50], np.zeros(50, dtype=int))
    with pytest.raises(DataError, match="a probability is not finite"):
        fit_temperature(np.where(np.arange(7) == 2, np.nan, values), actual)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(DataError, match="expected none, temperature, bias, vector"):
        calibrated(np.eye(7), {"method": "isotonic"})
