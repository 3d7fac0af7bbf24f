"""Calibration against hand arithmetic, torchmetrics, scikit-learn and loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import CODES
from scipy.optimize import brentq
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional import classification as tm

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import (
    calibration_scores,
    classwise_errors,
    expected_calibration_error,
    noise_floor,
    reliability_bins,
    target_calibration,
)
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.summary import metrics_with_ci


def test_bins_by_hand() -> None:
    rest = [0.0] * 5
    values = [[0.5, 0.5, *rest], [0.75, 0.25, *rest], [1, 0, *rest], [0.875, 0.125, *rest]]
    table = Predictions.build(list("abcd"), [""] * 4, probabilities=values, actual=["akiec", "bcc", "akiec", "akiec"])
    frame = reliability_bins(table, bins=4)
    assert frame["low"].tolist() == [0, 0.25, 0.5, 0.75]
    assert frame["high"].tolist() == [0.25, 0.5, 0.75, 1]
    assert frame["images"].tolist() == [0, 0, 1, 3]  # an edge belongs to the bin above it, 1 to the last
    np.testing.assert_allclose(frame["confidence"], [np.nan, np.nan, 0.5, 2.625 / 3])
    np.testing.assert_allclose(frame["accuracy"], [np.nan, np.nan, 1, 2 / 3])
    assert expected_calibration_error(frame) == pytest.approx((1 * 0.5 + 3 * (2.625 - 2) / 3) / 4)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("rows", [1, 300])
def test_the_error_is_that_of_torchmetrics(bins: int, rows: int) -> None:
    rng = np.random.default_rng(bins)
    names = [str(number) for number in range(rows)]
    values = rng.dirichlet([0.4] * 7, size=rows)
    actual = [CODES[k] for k in rng.integers(0, 7, rows)]
    table = Predictions.build(names, [""] * rows, probabilities=values, actual=actual)
    given = torch.from_numpy(table.probabilities), torch.from_numpy(table.targets)
    expected = tm.multiclass_calibration_error(*given, num_classes=7, n_bins=bins, norm="l1").item()
    frame = reliability_bins(table, bins=bins)
    assert expected_calibration_error(frame) == pytest.approx(expected, abs=1e-6)
    assert frame["images"].sum() == rows


def test_no_bins_are_refused() -> None:
    table = Predictions.build(["a"], [""], probabilities=np.eye(7)[:1], actual=["nv"])
    with pytest.raises(ValueError, match="at least 1"):
        reliability_bins(table, bins=0)


def drawn(images: int, *, seed: int, sharp: float = 1.0, each: int = 1) -> Predictions:
    """A table whose labels are drawn from its probabilities before these are sharpened; `each` images a lesion."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(rng.dirichlet([0.6] * 7, size=images // each), each, axis=0)
    labels = (truth.cumsum(axis=1) < np.repeat(rng.random(images // each), each)[:, None]).sum(axis=1).clip(max=6)
    return Predictions.build(
        [f"I{number:05d}" for number in range(images)],
        [f"L{number // each}" for number in range(images)],
        probabilities=softmax(sharp * np.log(truth + 1e-9), axis=1),
        actual=[CODES[k] for k in labels],
    )


def test_slope_and_intercept_are_those_of_other_solvers() -> None:
    table = drawn(600, seed=1, sharp=1.8)
    found = metrics_with_ci(table, BootstrapConfig(50, 1, 0.9, "percentile"), bins=10)
    for target in ("mel", "malignant"):
        given = table.target_score(target).clip(1e-12, 1 - 1e-12)
        own, x = table.taxonomy.mask(target)[table.targets], logit(given)
        slope = LogisticRegression(C=np.inf, tol=1e-10).fit(x[:, None], own).coef_[0, 0]
        intercept = brentq(lambda a, own=own, x=x: (own - expit(a + x)).sum(), -5, 5)
        assert found[f"slope_{target}"].value == pytest.approx(slope, rel=1e-4)
        assert found[f"intercept_{target}"].value == pytest.approx(intercept, abs=1e-6)
        assert found[f"oe_{target}"].value == pytest.approx(own.sum() / given.sum(), rel=1e-6)
        assert slope < 0.8  # sharpened by 1.8: too extreme


def test_resamples_are_refitted_well_enough_for_intervals() -> None:
    table = drawn(900, seed=2, sharp=0.7, each=3)
    weights = np.random.default_rng(3).multinomial(table.lesions, np.full(table.lesions, 1 / table.lesions), size=60)
    found = target_calibration(table, "malignant").resampled(weights.astype(float))
    own, x = table.taxonomy.mask("malignant")[table.targets], logit(table.target_score("malignant"))
    exact = [
        LogisticRegression(C=np.inf, tol=1e-8).fit(x[:, None], own, sample_weight=row[table.group]).coef_[0, 0]
        for row in weights
    ]
    ends = [0.05, 0.25, 0.5, 0.75, 0.95]
    refitted = np.quantile(found["slope_malignant"], ends)
    np.testing.assert_allclose(refitted, np.quantile(exact, ends), atol=0.05 * np.std(exact))


def test_a_target_without_images_has_no_slope_but_says_why() -> None:
    table = drawn(60, seed=4)
    kept = table.select(table.actual != "mel")
    found = metrics_with_ci(kept, BootstrapConfig(20, 1, 0.9, "percentile"), bins=5)
    for name in ("slope_mel", "intercept_mel", "oe_mel"):
        assert (found[name].value, found[name].note) == (None, "not computable: no image of mel")


def test_the_noise_floor_is_the_error_of_drawn_labels() -> None:
    table = drawn(400, seed=5, each=2)
    rng = np.random.default_rng(6)
    looped: dict[str, list[float]] = {"ece": [], "ece_mass": [], "classwise_ece": []}
    for _ in range(150):
        uniform = {lesion: rng.random() for lesion in table.lesion_id}
        labels = [
            int(np.searchsorted(np.cumsum(row), uniform[lesion]).clip(max=6))
            for row, lesion in zip(table.probabilities, table.lesion_id, strict=True)
        ]
        again = replace(table, actual=np.array([CODES[k] for k in labels], dtype=object))
        looped["ece"].append(expected_calibration_error(reliability_bins(again, bins=10)))
        looped["ece_mass"].append(expected_calibration_error(reliability_bins(again, bins=10, edges="mass")))
        looped["classwise_ece"].append(np.mean(list(classwise_errors(again, bins=10).values())))
    floor = noise_floor(table, bins=10)
    for name, values in looped.items():
        error = np.std(values) * np.sqrt(1 / len(values) + 1 / len(floor[name]))
        assert floor[name].mean() == pytest.approx(np.mean(values), abs=4 * error)
    scores = calibration_scores(table, bins=10)
    assert scores.ece < np.quantile(floor["ece"], 0.99)  # labels were drawn from these probabilities
    sharp = calibration_scores(drawn(400, seed=5, each=2, sharp=3.0), bins=10)
    assert sharp.ece > 2 * sharp.floor["ece"]
