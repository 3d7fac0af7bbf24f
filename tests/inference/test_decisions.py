"""Scaling, conformal sets and operating points against scipy, crepes, MAPIE and counts by hand."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.conformity_scores import APSConformityScore
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from skinlesion.errors import DataError
from skinlesion.inference import conformal, operating_points
from skinlesion.inference.calibration import fit_temperature, fit_vector, tempered, vector_scaled
from skinlesion.metrics.decision import at_prevalence, flagged
from skinlesion.taxonomy import CODES


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


@pytest.mark.parametrize("rows", [0, 1])
def test_scaling_of_too_little_is_refused(rows: int) -> None:
    values, actual = sample(3)
    with pytest.raises(DataError, match="not computable"):
        fit_temperature(values[:rows], actual[:rows])
    with pytest.raises(DataError, match="not computable"):
        fit_vector(values[:50], np.zeros(50, dtype=int))
    with pytest.raises(DataError, match="no finite number"):
        fit_temperature(np.where(np.arange(7) == 2, np.nan, values), actual)


def test_scores_are_mapies_without_the_own_share() -> None:
    values, actual = sample(4)
    up_to, _ = APSConformityScore.get_true_label_cumsum_proba(actual, values, np.arange(7))
    rows = np.arange(len(actual))
    own = conformal.scores(values)[rows, actual]
    np.testing.assert_allclose(own, up_to[:, 0] - values[rows, actual], atol=1e-12)
    rank = (values > values[rows, actual][:, None]).sum(axis=1) + 1
    punished = conformal.scores(values, penalty=0.1, free_ranks=2)[rows, actual]
    np.testing.assert_allclose(punished, own + 0.1 * np.maximum(rank - 2, 0), atol=1e-12)


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_sets_are_those_of_crepes(method: str) -> None:
    values, actual = sample(5, 600)
    fitted = conformal.fit(values[:400], actual[:400], alpha=0.1, method=method)
    shape = {"penalty": fitted["penalty"], "free_ranks": fitted["free_ranks"]}
    given_scores = conformal.scores(values, **shape)
    crepes = ConformalClassifier().fit(given_scores[:400][np.arange(400), actual[:400]], bins=actual[:400])
    columns = [crepes.predict_p(given_scores[400:], bins=np.full(200, k), smoothing=False)[:, k] for k in range(7)]
    expected = np.stack(columns, axis=1) > 0.1
    np.testing.assert_array_equal(conformal.prediction_sets(values[400:], fitted), expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.05, 0.1, 0.3]), by_class=st.booleans())
def test_coverage_on_exchangeable_data(seed: int, alpha: float, by_class: bool) -> None:
    values, actual = sample(seed, 1500)
    rng, held = np.random.default_rng(seed), []
    for _ in range(60):
        order = rng.permutation(len(actual))
        fit_on, judged = order[:500], order[500:]
        fitted = conformal.fit(values[fit_on], actual[fit_on], alpha=alpha, by_class=by_class)
        sets = conformal.prediction_sets(values[judged], fitted)
        assert sets[np.arange(1000), values[judged].argmax(axis=1)].all()
        inside = sets[np.arange(1000), actual[judged]]
        held.append([inside[actual[judged] == k].mean() for k in range(7)] if by_class else [inside.mean()])
    held_mean, error = np.mean(held, axis=0), np.std(held, axis=0)
    # all splits share the 1,500 images: the mean over splits varies far less than one split
    assert (held_mean >= 1 - alpha - error).all()


def test_a_diagnosis_of_few_images_is_in_every_set() -> None:
    values, actual = sample(6)
    df, vasc = CODES.index("df"), CODES.index("vasc")
    kept = np.concatenate([np.flatnonzero(actual == df)[:8], np.flatnonzero(~np.isin(actual, [df, vasc]))])
    fitted = conformal.fit(values[kept], actual[kept], alpha=0.1)
    assert fitted["always"] == ["df", "vasc"]  # 8 < 1 / 0.1 - 1 images, and none
    assert conformal.prediction_sets(values, fitted)[:, [df, vasc]].all()
    nine = np.append(kept, np.flatnonzero(actual == df)[8])
    assert conformal.fit(values[nine], actual[nine], alpha=0.1)["always"] == ["vasc"]


def test_operating_points_by_hand() -> None:
    mel, nv, bcc = (CODES.index(code) for code in ("mel", "nv", "bcc"))
    given_mel = [0.9, 0.8, 0.6, 0.3, 0.1, 0.85, 0.2]
    values = np.zeros((7, 7))
    values[:, mel], values[:, nv] = given_mel, 1 - np.array(given_mel)
    actual = np.array([mel, mel, mel, mel, mel, bcc, nv])
    points = operating_points.fit(values, actual, sensitivities=[0.8, 1.0])
    assert [(each["target"], each["sensitivity"], each["threshold"]) for each in points] == [
        ("mel", 0.8, 0.3),
        ("mel", 1.0, 0.1),
        ("malignant", 0.8, 0.3),  # five of six
        ("malignant", 1.0, 0.1),
    ]
    assert flagged(values, points[0]).tolist() == [True, True, True, True, False, True, False]
    nothing = operating_points.fit(values[6:], actual[6:], sensitivities=[0.9])[0]
    assert (nothing["threshold"], nothing["note"]) == (None, "not computable: no image of mel")


def test_predictive_values_by_bayes() -> None:
    ppv, npv = at_prevalence(0.9, 0.8, prevalence=0.1)
    assert (float(ppv), float(npv)) == pytest.approx((0.09 / 0.27, 0.72 / 0.73))
