"""Prediction sets against crepes and MAPIE."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.test_calibration import sample
from mapie.conformity_scores import APSConformityScore

from skinlesion.inference import conformal
from skinlesion.taxonomy import CODES


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
