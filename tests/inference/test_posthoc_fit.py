"""What an ensemble learns from validation: scaling tried on left-out lesions, decisions on one image a lesion."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from skinlesion.errors import DataError
from skinlesion.inference.calibration import calibrated, fit_temperature
from skinlesion.inference.member_metrics import measure
from skinlesion.inference.posthoc_fit import FOLDS, fit_calibration, fit_decisions, with_calibration, worsens_nll
from skinlesion.inference.predictions import build_table, predicted_targets, probabilities
from skinlesion.metrics.calibration import negative_log_likelihood
from skinlesion.metrics.summary import judged
from skinlesion.metrics.with_ci import by_lesion, with_intervals
from skinlesion.taxonomy import CODES

FAST = {"resamples": 100, "seed": 3, "level": 0.95, "method": "percentile", "bins": 10}


def too_sure(seed: int, *, images: int = 400, sharp: float = 2.0, each: int = 1) -> pd.DataFrame:
    """A table whose probabilities are the truth, sharpened; `each` images a lesion."""
    rng = np.random.default_rng(seed)
    truth = softmax(1.5 * rng.normal(size=(images, 7)), axis=1)
    actual = (truth.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1).clip(max=6)
    actual = actual[np.arange(images) // each * each]
    return build_table(
        [f"I{number:04d}" for number in range(images)],
        [f"L{number // each}" for number in range(images)],
        probabilities=softmax(sharp * np.log(truth), axis=1),
        actual=[CODES[k] for k in actual],
    )


def test_scaling_helps_what_is_too_sure_and_moves_no_prediction() -> None:
    table = too_sure(1)
    found = fit_calibration(table, method="temperature", bins=10)
    assert found["temperature"] == pytest.approx(2, rel=0.25)
    assert found["folds"]["temperature"]["nll"] < found["folds"]["none"]["nll"]
    assert found["folds"]["none"]["nll"] == pytest.approx(negative_log_likelihood(table).mean(), abs=1e-12)
    assert not worsens_nll(found)
    np.testing.assert_array_equal(predicted_targets(with_calibration(table, found)), predicted_targets(table))


def test_folds_judge_what_they_did_not_see() -> None:
    table = too_sure(2, images=60, each=2)
    found = fit_calibration(table, method="temperature", bins=10)["folds"]["temperature"]["nll"]
    # by hand: lesions ordered by diagnosis, dealt out in turn
    firsts = table.groupby("lesion_id", sort=False)["actual"].first()
    order = sorted(range(len(firsts)), key=lambda place: CODES.index(firsts.iloc[place]))
    fold_of = {firsts.index[place]: turn % FOLDS for turn, place in enumerate(order)}
    fold = table["lesion_id"].map(fold_of).to_numpy()
    losses = np.empty(len(table))
    for number in range(FOLDS):
        rest, own = table[fold != number], table[fold == number]
        temperature = fit_temperature(probabilities(rest), [CODES.index(code) for code in rest["actual"]])
        scaled = softmax(np.log(probabilities(own).astype(float)) / temperature, axis=1)
        losses[fold == number] = -np.log(scaled[np.arange(len(own)), [CODES.index(code) for code in own["actual"]]])
    assert found == pytest.approx(losses.mean(), abs=1e-6)


def test_it_is_said_where_scaling_hurts() -> None:
    worse = {"method": "temperature", "folds": {"none": {"nll": 1.0}, "temperature": {"nll": 1.1}}}
    assert worsens_nll(worse)
    assert not worsens_nll({**worse, "method": "none"})


def test_validation_of_one_diagnosis_is_not_calibrated() -> None:
    table = too_sure(3, images=20)
    table = table.assign(actual="nv")
    found = fit_calibration(table, method="temperature", bins=10)
    assert found["method"] == "none"
    assert "not computable" in found["note"]
    np.testing.assert_array_equal(calibrated(probabilities(table), found), probabilities(table))
    assert not worsens_nll(found)
    points = fit_decisions(table, sensitivities=[0.9], alphas=[0.1], score="aps")["operating_points"]
    assert all(point["threshold"] is None and "not computable" in point["note"] for point in points)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(DataError, match="expected temperature, vector, none"):
        calibrated(np.eye(7), {"method": "isotonic"})


def test_sets_are_fitted_on_one_image_a_lesion() -> None:
    table = too_sure(4, each=4)
    counted = fit_decisions(table, sensitivities=[0.9], alphas=[0.1], score="aps")["conformal"][0]["images"]
    assert sum(counted.values()) == 100
    once = table[table["image_id"].isin(by_lesion(table)["image_id"])]  # a lesion is named by its first image
    expected = fit_decisions(once, sensitivities=[0.9], alphas=[0.1], score="aps")["conformal"]
    assert fit_decisions(table.iloc[::-1], sensitivities=[0.9], alphas=[0.1], score="aps")["conformal"] == expected


def test_results_per_lesion() -> None:
    table = too_sure(5, images=90, each=3)
    found = judged(table, **FAST)
    assert (found["images"], found["lesions"]) == (90, 30)
    assert found["per_lesion"] == with_intervals(by_lesion(table), **FAST)
    assert judged(too_sure(5, images=90), **FAST)["per_lesion"] is None


def test_an_ensemble_of_copies_gains_nothing() -> None:
    good, bad = too_sure(6), too_sure(6).assign(predicted="nv")
    bad = build_table(
        good["image_id"].tolist(),
        good["lesion_id"].tolist(),
        probabilities=np.full((len(good), 7), 1 / 7),
        actual=good["actual"].tolist(),
    )
    tables = {"val": [bad, good], "test": [bad, good]}
    found = measure(tables, [1, 1], ["bad", "good"], None, **FAST)
    assert found["against_best_member"]["name"] == "good"
    assert found["against_best_member"]["test"]["accuracy"]["value"] == 0
    assert found["calibrated"] == {"val": found["val"], "test": found["test"]}
