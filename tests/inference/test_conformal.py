"""Prediction sets against crepes and MAPIE."""

import numpy as np
import pytest
from conftest import CODES
from crepes import ConformalClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from inference.test_calibration import sample
from mapie.conformity_scores import APSConformityScore

from skinlesion.inference import conformal


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


def first(actual: np.ndarray, **images: int) -> np.ndarray:
    """Positions of the first images of some diagnoses, and of all images of the others."""
    own = [np.flatnonzero(actual == k)[: images.get(code)] for k, code in enumerate(CODES)]
    return np.concatenate(own)


def test_diagnoses_of_few_images_share_a_threshold() -> None:
    values, actual = sample(6)
    df, akiec = CODES.index("df"), CODES.index("akiec")
    kept = first(actual, df=8, vasc=0, akiec=11)
    fitted = conformal.fit(values[kept], actual[kept], alpha=0.1)
    assert fitted["pooled"] == ["akiec", "df"]  # 8 < 1 / 0.1 - 1 images, and the next rarest that has any
    assert fitted["always"] == ["vasc"]  # no image tells anything about it
    sets = conformal.prediction_sets(values, fitted)
    assert sets[:, CODES.index("vasc")].all()
    assert not sets[:, df].all()
    own = conformal.scores(values[kept])[np.arange(len(kept)), actual[kept]]
    together = np.sort(own[np.isin(actual[kept], [df, akiec])])
    assert fitted["thresholds"]["df"] == fitted["thresholds"]["akiec"] == together[int(np.ceil(20 * 0.9)) - 1]
    nine = first(actual, df=9, vasc=0, akiec=11)
    enough = conformal.fit(values[nine], actual[nine], alpha=0.1)
    assert (enough["pooled"], enough["always"]) == ([], ["vasc"])
    few = first(actual, **dict.fromkeys(CODES, 1))
    assert conformal.fit(values[few], actual[few], alpha=0.1)["always"] == list(CODES)


def test_pooled_diagnoses_are_covered_together() -> None:
    values, actual = sample(8, 3000)
    rng, rare, held = np.random.default_rng(8), [CODES.index("df"), CODES.index("vasc")], []
    pool = np.flatnonzero(np.isin(actual, rare))
    others = np.flatnonzero(~np.isin(actual, rare))[:200]
    for _ in range(300):
        drawn = rng.permutation(pool)
        fit_on = np.concatenate([drawn[:14], others])
        fitted = conformal.fit(values[fit_on], actual[fit_on], alpha=0.1)
        if fitted["pooled"] == ["df", "vasc"]:
            judged = drawn[14:]
            held.append(
                conformal.prediction_sets(values[judged], fitted)[np.arange(len(judged)), actual[judged]].mean()
            )
    assert len(held) > 200
    assert np.mean(held) == pytest.approx(14 / 15, abs=0.02)  # rank ceil(15 * 0.9) = 14 of 14: 14 / 15, at least 0.9
