"""What an ensemble learns from validation: scaling tried on left-out lesions, decisions on one image a lesion."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from skinlesion.inference.calibration import calibrated, fit_temperature
from skinlesion.inference.posthoc_fit import FOLDS, fit_calibration, fit_decisions, with_calibration, worsens_nll
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import negative_log_likelihood
from skinlesion.taxonomy import CODES


def too_sure(seed: int, *, images: int = 400, sharp: float = 2.0, each: int = 1) -> Predictions:
    """A table whose probabilities are the truth, sharpened; `each` images a lesion."""
    rng = np.random.default_rng(seed)
    truth = softmax(1.5 * rng.normal(size=(images, 7)), axis=1)
    actual = (truth.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1).clip(max=6)
    actual = actual[np.arange(images) // each * each]
    return Predictions.build(
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
    np.testing.assert_array_equal(with_calibration(table, found).predicted_targets, table.predicted_targets)


def test_each_fold_is_scaled_by_the_others() -> None:
    table = too_sure(2, images=60, each=2)
    found = fit_calibration(table, method="temperature", bins=10)["folds"]["temperature"]["nll"]
    # by hand: lesions ordered by diagnosis, dealt out in turn
    diagnosis = dict(zip(table.lesion_id, table.actual, strict=True))
    order = sorted(diagnosis, key=lambda lesion: CODES.index(diagnosis[lesion]))
    fold_of = {lesion: turn % FOLDS for turn, lesion in enumerate(order)}
    fold = np.array([fold_of[lesion] for lesion in table.lesion_id])
    losses = np.empty(len(table))
    for number in range(FOLDS):
        rest, own = table.select(fold != number), table.select(fold == number)
        temperature = fit_temperature(rest.probabilities, [CODES.index(code) for code in rest.actual])
        scaled = softmax(np.log(own.probabilities.astype(float)) / temperature, axis=1)
        losses[fold == number] = -np.log(scaled[np.arange(len(own)), [CODES.index(code) for code in own.actual]])
    assert found == pytest.approx(losses.mean(), abs=1e-6)


def test_scaling_that_worsens_the_likelihood_is_recognised() -> None:
    worse = {"method": "temperature", "folds": {"none": {"nll": 1.0}, "temperature": {"nll": 1.1}}}
    assert worsens_nll(worse)
    assert not worsens_nll({**worse, "method": "none"})


def test_validation_of_one_diagnosis_is_not_calibrated() -> None:
    table = too_sure(3, images=20)
    table = replace(table, actual=np.full(20, "nv", dtype=object))
    found = fit_calibration(table, method="temperature", bins=10)
    assert found["method"] == "none"
    assert "not computable" in found["note"]
    np.testing.assert_array_equal(calibrated(table.probabilities, found), table.probabilities)
    assert not worsens_nll(found)
    points = fit_decisions(table, sensitivities=[0.9], alphas=[0.1], score="aps")["operating_points"]
    assert all(point["threshold"] is None and "not computable" in point["note"] for point in points)


def test_sets_are_fitted_on_one_image_a_lesion() -> None:
    table = too_sure(4, each=4)
    counted = fit_decisions(table, sensitivities=[0.9], alphas=[0.1], score="aps")["conformal"][0]["images"]
    assert sum(counted.values()) == 100
    once = table.select(np.arange(0, len(table), 4))
    expected = fit_decisions(once, sensitivities=[0.9], alphas=[0.1], score="aps")["conformal"]
    assert (
        fit_decisions(table.select(np.arange(len(table))[::-1]), sensitivities=[0.9], alphas=[0.1], score="aps")[
            "conformal"
        ]
        == expected
    )
