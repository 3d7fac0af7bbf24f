"""Metrics against hand arithmetic, scikit-learn, torchmetrics and counting pairs."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from conftest import CODES
from sklearn import metrics as sk
from torchmetrics.functional import classification as tm

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import (
    accuracy,
    balanced_accuracy,
    confusions,
    headline,
    macro_f1,
    one_against_rest,
    report,
)


def random_table(counts: list[int], *, seed: int) -> Predictions:
    """Build a table with so many images of each diagnosis; rounding makes many probabilities equal."""
    rng = np.random.default_rng(seed)
    actual = np.repeat(np.arange(7), counts)
    tenths = rng.multinomial(20, (np.eye(7) * 2 + 1)[actual] / 9)
    names = [f"I{number:04d}" for number in range(len(actual))]
    return Predictions.build(names, [""] * len(names), probabilities=tenths / 20, actual=[CODES[k] for k in actual])


COUNTS = [[17, 26, 49, 4, 20, 495, 7], [5, 0, 3, 0, 9, 2, 1], [0, 0, 0, 0, 12, 0, 0], [0, 1, 0, 0, 0, 0, 0], [3] * 7]


def test_confusions_by_hand() -> None:
    matrix = confusions(np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0]), classes=3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]


def test_confusions_of_many_predictions_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    actual, predicted = rng.integers(0, 7, 50), rng.integers(0, 7, (2, 3, 50))
    matrices = confusions(actual, predicted, classes=7)
    assert matrices.shape == (2, 3, 7, 7)
    for place in product(range(2), range(3)):
        expected = sk.confusion_matrix(actual, predicted[place], labels=range(7))
        np.testing.assert_array_equal(matrices[place], expected)


@pytest.mark.parametrize(("actual", "predicted"), [([0, 7], [0, 0]), ([0, 1], [-1, 0]), ([-1, 0], [0, 0])])
def test_indices_out_of_range_are_refused(actual: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.6"):
        confusions(np.array(actual), np.array(predicted), classes=7)


def test_metrics_by_hand() -> None:
    matrix = [[3, 1, 0], [0, 2, 0], [0, 2, 0]]
    assert accuracy(matrix) == 5 / 8
    assert balanced_accuracy(matrix) == pytest.approx((3 / 4 + 1 + 0) / 3)
    assert macro_f1(matrix) == pytest.approx((6 / 7 + 4 / 7 + 0) / 3)


def test_an_absent_class_is_left_out() -> None:
    matrix = [[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert macro_f1(matrix) == pytest.approx((6 / 7 + 4 / 5) / 2)
    assert balanced_accuracy(matrix) == pytest.approx((3 / 4 + 1) / 2)


def test_a_class_only_predicted_has_f1_zero_and_no_recall() -> None:
    matrix = [[3, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert macro_f1(matrix) == pytest.approx((6 / 7 + 0) / 2)
    assert balanced_accuracy(matrix) == 3 / 4


def test_no_images_have_no_metrics() -> None:
    assert np.isnan([accuracy(np.zeros((7, 7))), macro_f1(np.zeros((7, 7))), balanced_accuracy(np.zeros((7, 7)))]).all()


def test_many_matrices_at_once_are_each_alone() -> None:
    matrices = np.random.default_rng(1).integers(0, 3, (4, 5, 7, 7)) * np.random.default_rng(2).integers(0, 2, (7, 1))
    for metric in (accuracy, macro_f1, balanced_accuracy):
        expected = [[float(metric(matrix)) for matrix in row] for row in matrices]
        np.testing.assert_array_equal(metric(matrices), expected)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_headline_is_that_of_the_libraries(counts: list[int], seed: int) -> None:
    table = random_table(counts, seed=seed)
    actual, predicted = table.targets, table.predicted_targets
    recall = sk.recall_score(actual, predicted, labels=np.unique(actual), average="macro", zero_division=0)
    f1 = sk.f1_score(actual, predicted, average="macro")
    expected = {"accuracy": np.mean(actual == predicted), "macro_f1": f1, "balanced_accuracy": recall}
    assert headline(table) == pytest.approx(expected)
    torch_f1 = tm.multiclass_f1_score(torch.from_numpy(predicted), torch.from_numpy(actual), 7, average="macro")
    assert headline(table)["macro_f1"] == pytest.approx(torch_f1.item(), rel=1e-6)


@pytest.mark.parametrize("counts", COUNTS)
def test_the_report_is_that_of_scikit_learn(counts: list[int]) -> None:
    table = random_table(counts, seed=3)
    actual, predicted = table.targets, table.predicted_targets
    expected = sk.precision_recall_fscore_support(actual, predicted, labels=range(7), zero_division=np.nan)
    for k, code in enumerate(CODES):
        own = report(table).to_dict()["per_diagnosis"][code]
        assert list(own) == ["precision", "recall", "f1", "auroc", "ap", "support"]
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert own[name] == (None if np.isnan(values[k]) else pytest.approx(values[k])), (code, name)


def by_pairs(positive: np.ndarray, probability: np.ndarray) -> float:
    """Count the pairs of a positive and a negative that stand in the right order; equal ones count a half."""
    above = probability[positive][:, None] - probability[~positive][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


@pytest.mark.parametrize("counts", COUNTS)
def test_areas_are_those_of_pairs_and_torchmetrics(counts: list[int]) -> None:
    table = random_table(counts, seed=4)
    actual, values = table.targets, table.probabilities
    own = report(table).to_dict()
    aurocs, aps = [], []
    for k, code in enumerate(CODES):
        positive = actual == k
        area = own["per_diagnosis"][code]
        assert (area["auroc"] is None) == (not 0 < counts[k] < sum(counts))
        assert (area["ap"] is None) == (counts[k] == 0)
        if area["auroc"] is not None:
            aurocs.append(by_pairs(positive, values[:, k]))
            assert area["auroc"] == pytest.approx(aurocs[-1])
        if area["ap"] is not None:
            ap = tm.binary_average_precision(torch.from_numpy(values[:, k]), torch.from_numpy(positive).int())
            aps.append(ap.item())
            assert area["ap"] == pytest.approx(aps[-1], rel=1e-5)
    assert own["macro_auroc"] == (pytest.approx(np.mean(aurocs)) if aurocs else None)
    assert own["macro_ap"] == pytest.approx(np.mean(aps), rel=1e-5)


def test_areas_by_hand() -> None:
    auroc, ap = one_against_rest(np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1]))
    assert auroc == pytest.approx(3 / 4)
    assert ap == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert one_against_rest(np.array([True, False]), np.array([0.5, 0.5])) == (0.5, 0.5)
    assert one_against_rest(np.array([False, False]), np.array([0.5, 0.4])) == (None, None)
    assert one_against_rest(np.array([True, True]), np.array([0.5, 0.4])) == (None, 1.0)


def test_the_report_is_plain_data() -> None:
    table = random_table([5, 0, 3, 0, 9, 2, 1], seed=5)
    own = report(table).to_dict()
    assert json.loads(json.dumps(own, allow_nan=False)) == own
    assert list(own)[:5] == ["images", "lesions", "accuracy", "macro_f1", "balanced_accuracy"]
    assert list(own["per_diagnosis"]) == list(CODES)


def test_lesions_are_counted_and_unknown_ones_each() -> None:
    table = Predictions.build(list("abcd"), ["H", "H", "", ""], probabilities=np.eye(7)[:4], actual=CODES[:4])
    assert (report(table).images, report(table).lesions) == (4, 3)
