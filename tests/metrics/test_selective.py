"""Risk-coverage curves against hand arithmetic, a slow count, and scipy's entropies."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import CODES
from scipy.stats import entropy

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.selective import (
    AurcStatistic,
    aurc,
    confidence_score,
    reject_option,
    risk_coverage,
    threshold_at_share,
)

FAST = BootstrapConfig(resamples=200)


def table_of(seed: int, images: int = 80, lesions: int = 50) -> Predictions:
    rng = np.random.default_rng(seed)
    values = rng.dirichlet([0.5] * 7, images)
    lesion = rng.integers(0, lesions, images)
    return Predictions.build(
        [f"I{number:03d}" for number in range(images)],
        [f"L{number}" for number in lesion],
        probabilities=values,
        actual=[CODES[k] for k in (values.cumsum(axis=1) < rng.random((images, 1))).sum(axis=1).clip(max=6)],
    )


def test_the_curve_by_hand() -> None:
    likeliest = [0.9, 0.8, 0.8, 0.6]  # right, wrong, right, wrong
    values = np.zeros((4, 7))
    values[:, 5], values[:, 4] = likeliest, 1 - np.array(likeliest)
    table = Predictions.build(["a", "b", "c", "d"], [""] * 4, probabilities=values, actual=["nv", "mel", "nv", "mel"])
    curve = risk_coverage(table, confidence_score(table)["confidence"])
    assert curve["coverage"].tolist() == [0.25, 0.75, 1.0]  # the equally sure stay together
    assert curve["risk"].tolist() == pytest.approx([0, 1 / 3, 1 / 2])
    found = aurc(table, confidence_score(table), FAST)
    assert found["confidence"].value == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 2) / 4)
    assert found["chance"].value == pytest.approx(0.5)
    assert found["best"].value == pytest.approx((0 + 0 + 1 / 2 + 1 / 2) / 4)


def test_the_area_is_the_mean_risk() -> None:
    table = table_of(1)
    sure = confidence_score(table)["confidence"]
    wrong = table.targets != table.predicted_targets
    expected = np.mean([wrong[sure >= own].mean() for own in sure])
    found = aurc(table, {"confidence": sure}, FAST)
    assert found["confidence"].value == pytest.approx(expected, abs=1e-12)
    assert found["best"].value <= found["confidence"].value < found["chance"].value
    assert found["chance"].value == pytest.approx(wrong.mean())
    assert found["confidence"].low <= found["confidence"].value <= found["confidence"].high


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_the_threshold_is_of_validation_and_the_rates_are_of_the_images(share: float) -> None:
    table, validation = table_of(5), table_of(6, images=60, lesions=60)
    sure, own = (confidence_score(each)["confidence"] for each in (table, validation))
    found = reject_option(table, sure, validation=own, share=share, config=FAST)
    assert found.threshold == sorted(own, reverse=True)[round(share * 60) - 1]
    kept, right = sure >= found.threshold, table.targets == table.predicted_targets
    assert found.metrics["coverage"].value == pytest.approx(kept.mean())
    assert found.metrics["risk"].value == pytest.approx(1 - right[kept].mean())
    for code in CODES:
        is_code = table.actual == code
        assert found.metrics[f"kept_{code}"].value == pytest.approx(kept[is_code].mean())
        if (is_code & kept).any():
            assert found.metrics[f"recall_{code}"].value == pytest.approx(right[is_code & kept].mean())
        else:
            assert found.metrics[f"recall_{code}"].value is None
    risk = found.metrics["risk"]
    assert risk.low < risk.value < risk.high


def test_equal_scores_stay_together() -> None:
    assert threshold_at_share(np.array([0.9, 0.8, 0.8, 0.6]), 0.5) == 0.8  # keeps three of four
    assert threshold_at_share(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), 0.8) == 0.6  # four fifths of five are four


def test_a_lesion_that_counts_twice_is_a_lesion_twice() -> None:
    table = table_of(2, images=12, lesions=12)
    wrong = (table.targets != table.predicted_targets).astype(float)
    sure = confidence_score(table)["confidence"]
    weights = np.array([[2, 0, 1, 1, 3, 1, 0, 1, 1, 1, 1, 2]], dtype=float)
    found = AurcStatistic({"x": sure}, wrong, np.arange(12)).resampled(weights)["x"][0]
    rows = np.repeat(np.arange(12), weights[0].astype(int))
    assert found == pytest.approx(np.mean([wrong[rows][sure[rows] >= own].mean() for own in sure[rows]]))


def test_entropy_and_disagreement_are_scipys() -> None:
    first, second = table_of(3), table_of(4)
    second = replace(second, lesion_id=first.lesion_id, actual=first.actual)
    mean = (first.probabilities.astype(float) + second.probabilities) / 2
    table = first.with_probabilities(mean)
    found = confidence_score(table, [first, second.select(np.arange(len(second))[::-1])])
    np.testing.assert_allclose(found["entropy"], -entropy(mean, axis=1), atol=1e-5)
    each = (entropy(first.probabilities, axis=1) + entropy(second.probabilities, axis=1)) / 2
    np.testing.assert_allclose(found["disagreement"], each - entropy(mean, axis=1), atol=1e-5)
    assert (found["disagreement"] <= 1e-6).all()  # entropy is concave
    assert "disagreement" not in confidence_score(table, [first])
