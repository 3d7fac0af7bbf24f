"""All reported metrics with intervals against the point report; paired differences."""

from dataclasses import replace
from time import process_time

import numpy as np
import pytest
from conftest import CODES
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import calibration_scores
from skinlesion.metrics.classification import report
from skinlesion.metrics.compare import metric_differences
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.summary import metrics_with_ci, strata_of, summarize_predictions

FAST = BootstrapConfig(200, 1, 0.9, "percentile")


def random_table(lesions: int, *, seed: int, skill: float = 1.5, codes: int = 7) -> Predictions:
    rng = np.random.default_rng(seed)
    index = np.append(np.arange(lesions), rng.integers(0, lesions, lesions // 3))
    diagnosis = rng.integers(0, codes, lesions)[index]
    values = np.exp(rng.normal(size=(len(index), 7)) + skill * np.eye(7)[diagnosis])
    return Predictions.build(
        [f"I{number:05d}" for number in range(len(index))],
        [f"H{number}" for number in index],
        probabilities=values / values.sum(axis=1, keepdims=True),
        actual=[CODES[k] for k in diagnosis],
    )


def test_the_source_of_most_nevi_is_left_out_within_source() -> None:
    actual = ["nv", "nv", "nv", "mel", "mel", "mel", "nv", "bkl"]
    sources = ["a", "a", "b", "b", "b", "b", "unknown", "a"]
    ids = [f"I{k}" for k in range(8)]
    table = Predictions.build(ids, ids, probabilities=np.full((8, 7), 1 / 7), actual=actual)
    found = strata_of(table, {"dataset": sources, "dx_type": ["histo"] * 3 + ["consensus"] * 5})
    assert list(found) == ["all images", "without a", "histology alone"]
    assert found["all images"].all()
    assert found["without a"].tolist() == [source != "a" for source in sources]  # b has more images, but fewer nevi
    assert found["histology alone"].tolist() == [True] * 3 + [False] * 5
    assert list(strata_of(table, {})) == ["all images"]
    assert list(strata_of(table, {"dataset": ["a"] * 8, "dx_type": ["histo"] * 8})) == ["all images"]


def test_the_values_are_those_of_the_report() -> None:
    table = random_table(120, seed=0)
    found, point = metrics_with_ci(table, FAST, bins=10), report(table).to_dict()
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "macro_auroc", "macro_ap"):
        assert found[name].value == pytest.approx(point[name], abs=1e-12)
    for code, each in point["per_diagnosis"].items():
        for name in ("precision", "recall", "f1", "auroc", "ap"):
            assert found[f"{name}_{code}"].value == pytest.approx(each[name], abs=1e-12)
    columns = [CODES.index(code) for code in ("akiec", "bcc", "mel")]
    malignant, score = np.isin(table.targets, columns), table.probabilities[:, columns].astype(float).sum(axis=1)
    assert found["auroc_malignant"].value == pytest.approx(roc_auc_score(malignant, score), abs=1e-12)
    assert found["ap_malignant"].value == pytest.approx(average_precision_score(malignant, score), abs=1e-12)
    scores = calibration_scores(table, bins=10).to_dict()
    for name in ("ece", "ece_mass", "classwise_ece", "brier", "nll"):
        assert found[name].value == pytest.approx(scores[name], abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_intervals_hold_the_value_widen_and_do_not_depend_on_order_or_names(seed: int) -> None:
    table = random_table(80, seed=seed)
    narrow = metrics_with_ci(table, FAST, bins=10)
    wide = metrics_with_ci(table, replace(FAST, level=0.99), bins=10)
    other = table.select(np.random.default_rng(seed).permutation(len(table)))
    names = {lesion: f"X{place}" for place, lesion in enumerate(sorted(set(table.lesion_id), reverse=True))}
    renamed = np.array([names[lesion] for lesion in other.lesion_id], dtype=object)
    again = metrics_with_ci(replace(other, lesion_id=renamed), FAST, bins=10)
    for name, each in narrow.items():
        if each.low is None:
            continue
        assert wide[name].low <= each.low <= each.high <= wide[name].high
        # sums in another order round differently, and fits go on from there
        assert again[name].low == pytest.approx(each.low, abs=1e-9)
        assert again[name].high == pytest.approx(each.high, abs=1e-9)
    for name in ("accuracy", "balanced_accuracy", "brier", "nll", "macro_auroc"):
        assert wide[name].low <= wide[name].value <= wide[name].high


def test_a_table_against_itself_and_a_worse_one() -> None:
    good = random_table(150, seed=5, skill=3.0)
    rng = np.random.default_rng(6)
    noise = good.probabilities * np.exp(2 * rng.normal(size=(len(good), 7)))
    bad = good.with_probabilities(noise / noise.sum(axis=1, keepdims=True))
    same = metric_differences(good, good, FAST, bins=10)["accuracy"]
    assert (same.value, same.low, same.high, same.p) == (0, None, None, 1)
    found, back = (metric_differences(*pair, FAST, bins=10)["accuracy"] for pair in ((good, bad), (bad, good)))
    assert metric_differences(good, bad, FAST, bins=10)["macro_f1"].p == 1 / 201
    apart = [metrics_with_ci(table, FAST, bins=10)["accuracy"] for table in (good, bad)]
    assert found.value == pytest.approx(apart[0].value - apart[1].value, abs=1e-12)
    assert found.low > 0
    assert found.p < 2 / 201
    assert back.high == pytest.approx(-found.low, abs=1e-12)
    with pytest.raises(DataError, match="hold 200 and 199 images, 1 in one table only"):
        metric_differences(good, bad.select(np.arange(1, len(bad))), FAST, bins=10)


def test_a_metric_that_cannot_be_computed_has_a_note() -> None:
    table = random_table(60, seed=7, codes=6)
    found = metrics_with_ci(table, FAST, bins=10)
    for name in ("recall_vasc", "auroc_vasc", "ap_vasc"):
        assert found[name].value is None
        assert found[name].note == "not computable: no image of vasc"
    one = metrics_with_ci(table.select(np.arange(1)), replace(FAST, method="bca"), bins=10)
    assert one["macro_auroc"].note == "not computable"
    assert "all resamples agree" in one["accuracy"].note
    for each in (found, one):
        numbers = [number for row in each.values() for number in (row.value, row.low, row.high)]
        assert not any(number is not None and np.isnan(number) for number in numbers)


def test_a_lesion_counts_once_per_lesion() -> None:
    table = random_table(30, seed=8)
    found = summarize_predictions(table, FAST, bins=10)
    assert (found.images, found.lesions) == (40, 30)
    assert found.per_lesion == metrics_with_ci(table.by_group(), FAST, bins=10)
    single = summarize_predictions(table.by_group(), FAST, bins=10)
    assert single.per_lesion is None
    assert single.to_dict()["intervals"]["accuracy"] == [
        single.metrics["accuracy"].low,
        single.metrics["accuracy"].high,
    ]


def test_ten_thousand_images_take_seconds() -> None:
    table = random_table(8000, seed=9)
    assert len(table) > 10_000
    start = process_time()
    metrics_with_ci(table, BootstrapConfig(2000, 1, 0.95, "bca"), bins=10)
    assert process_time() - start < 5  # about 2 on one core
