"""Intervals of all reported numbers against scipy's bootstrap and the point report; paired differences; lesions."""

from time import process_time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from skinlesion.errors import DataError
from skinlesion.inference.predictions import build_table, probabilities
from skinlesion.metrics.bootstrap import SumStatistic, bca_tails, bootstrap
from skinlesion.metrics.calibration import calibration_scores
from skinlesion.metrics.classification import report
from skinlesion.metrics.with_ci import by_lesion, compare, with_intervals
from skinlesion.taxonomy import CODES

FAST = {"resamples": 200, "seed": 1, "level": 0.9, "method": "percentile", "bins": 10}


def random_table(lesions: int, *, seed: int, skill: float = 1.5, codes: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    index = np.append(np.arange(lesions), rng.integers(0, lesions, lesions // 3))
    diagnosis = rng.integers(0, codes, lesions)[index]
    values = np.exp(rng.normal(size=(len(index), 7)) + skill * np.eye(7)[diagnosis])
    return build_table(
        [f"I{number:05d}" for number in range(len(index))],
        [f"H{number}" for number in index],
        probabilities=values / values.sum(axis=1, keepdims=True),
        actual=[CODES[k] for k in diagnosis],
    )


def test_the_values_are_those_of_the_report() -> None:
    table = random_table(120, seed=0)
    found, point = with_intervals(table, **FAST), report(table)
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "macro_auroc", "macro_ap"):
        assert found[name]["value"] == pytest.approx(point[name], abs=1e-12)
    for code, each in point["per_diagnosis"].items():
        for name in ("precision", "recall", "f1", "auroc", "ap"):
            assert found[f"{name}_{code}"]["value"] == pytest.approx(each[name], abs=1e-12)
    scores = calibration_scores(table, bins=10)
    for name in ("ece", "ece_mass", "classwise_ece", "brier", "nll"):
        assert found[name]["value"] == pytest.approx(scores[name], abs=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_of_a_mean_is_scipys(method: str) -> None:
    sample = np.random.default_rng(2).lognormal(size=40)
    mean = SumStatistic(np.stack([sample, np.ones(40)], axis=1), lambda sums: {"mean": sums[:, 0] / sums[:, 1]})
    found = bootstrap(mean, lesions=40, resamples=20_000, seed=3, level=0.9, method=method)["mean"]
    name = {"percentile": "percentile", "bca": "BCa"}[method]
    expected = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, confidence_level=0.9, method=name, rng=np.random.default_rng(4)
    ).confidence_interval
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected), abs=0.03 * sample.std())


def test_the_correction_is_that_of_the_formula() -> None:
    replicates, left_out = np.arange(100.0), np.array([1.0, 2.0, 4.0, 9.0])
    influence = left_out.mean() - left_out
    a = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    z0 = stats.norm.ppf(0.405)  # 40 below and one equal of 100
    z = z0 + stats.norm.ppf([0.05, 0.95])
    expected = stats.norm.cdf(z0 + z / (1 - a * z))
    assert bca_tails(40.0, replicates, left_out, level=0.9) == pytest.approx(tuple(expected), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_intervals_hold_the_value_widen_and_do_not_depend_on_order_or_names(seed: int) -> None:
    table = random_table(80, seed=seed)
    narrow = with_intervals(table, **FAST)
    wide = with_intervals(table, **{**FAST, "level": 0.99})
    other = table.sample(frac=1, random_state=seed, ignore_index=True)
    names = {lesion: f"X{place}" for place, lesion in enumerate(sorted(set(table["lesion_id"]), reverse=True))}
    again = with_intervals(other.assign(lesion_id=other["lesion_id"].map(names)), **FAST)
    for name, each in narrow.items():
        if each["low"] is None:
            continue
        assert wide[name]["low"] <= each["low"] <= each["high"] <= wide[name]["high"]
        assert again[name]["low"] == pytest.approx(each["low"], abs=1e-12)
        assert again[name]["high"] == pytest.approx(each["high"], abs=1e-12)
    for name in ("accuracy", "balanced_accuracy", "brier", "nll", "macro_auroc"):
        assert wide[name]["low"] <= wide[name]["value"] <= wide[name]["high"]


def test_a_table_against_itself_and_a_worse_one() -> None:
    good = random_table(150, seed=5, skill=3.0)
    rng = np.random.default_rng(6)
    noise = probabilities(good) * np.exp(2 * rng.normal(size=(len(good), 7)))
    bad = build_table(
        good["image_id"].tolist(),
        good["lesion_id"].tolist(),
        probabilities=noise / noise.sum(axis=1, keepdims=True),
        actual=good["actual"].tolist(),
    )
    same = compare(good, good, **FAST)["accuracy"]
    assert (same["value"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    found, back = compare(good, bad, **FAST)["accuracy"], compare(bad, good, **FAST)["accuracy"]
    apart = [with_intervals(table, **FAST)["accuracy"] for table in (good, bad)]
    assert found["value"] == pytest.approx(apart[0]["value"] - apart[1]["value"], abs=1e-12)
    assert found["low"] > 0
    assert found["p"] == pytest.approx(2 / 201)
    assert back["high"] == pytest.approx(-found["low"], abs=1e-12)
    with pytest.raises(DataError, match="differ in image_id"):
        compare(good, bad.iloc[1:], **FAST)


def test_what_cannot_be_computed_is_said() -> None:
    table = random_table(60, seed=7, codes=6)
    found = with_intervals(table, **FAST)
    for name in ("recall_vasc", "auroc_vasc", "ap_vasc"):
        assert found[name]["value"] is None
        assert found[name]["note"] == "not computable: no image of vasc"
    one = with_intervals(table.iloc[:1], **{**FAST, "method": "bca"})
    assert one["macro_auroc"]["note"] == "not computable"
    assert "all resamples agree" in one["accuracy"]["note"]
    for each in (found, one):
        assert not any(isinstance(value, float) and np.isnan(value) for row in each.values() for value in row.values())


def test_images_of_a_lesion_vote() -> None:
    table = random_table(30, seed=8)
    voted = by_lesion(table)
    expected = table.groupby("lesion_id")[list(CODES)].mean()
    assert len(voted) == 30
    np.testing.assert_allclose(voted.set_index("lesion_id").loc[expected.index, list(CODES)], expected, atol=1e-6)
    twin = table["lesion_id"].duplicated(keep=False).to_numpy().nonzero()[0][0]
    other = "nv" if table["actual"].iloc[twin] != "nv" else "mel"
    with pytest.raises(DataError, match="several actual diagnoses"):
        by_lesion(table.assign(actual=[other if row == twin else code for row, code in enumerate(table["actual"])]))


def test_ten_thousand_images_take_seconds() -> None:
    table = random_table(8000, seed=9)
    assert len(table) > 10_000
    start = process_time()
    with_intervals(table, resamples=2000, seed=1, level=0.95, method="bca", bins=10)
    assert process_time() - start < 5  # about 2 on one core
