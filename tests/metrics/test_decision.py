"""Operating points, net benefit and prediction sets against counts by hand, also of other diagnoses than HAM10000's."""

import numpy as np
import pytest
from scipy.stats import binomtest

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.decision import at_prevalence, flag_metrics, net_benefit, set_coverage
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.taxonomy import Diagnosis, Taxonomy

FAST = BootstrapConfig(100, 1, 0.9, "percentile")
TWO = Taxonomy(
    name="two",
    diagnoses=(Diagnosis("good", "a mole", "benign"), Diagnosis("bad", "a melanoma", "malignant")),
    majority="good",
    targets=("bad",),
    submission_order=("bad", "good"),
)


def eight() -> Predictions:
    """Eight images of five patients, three of them bad."""
    bad = np.array([0.9, 0.6, 0.3, 0.7, 0.4, 0.2, 0.1, 0.05])
    actual = ["bad", "bad", "bad", *["good"] * 5]
    patients = ["p1", "p1", "", "p2", "p2", "p3", "p3", "p3"]
    values = np.stack([1 - bad, bad], axis=1)
    return Predictions.build(list("abcdefgh"), patients, probabilities=values, actual=actual, taxonomy=TWO)


def test_predictive_values_by_bayes() -> None:
    ppv, npv = at_prevalence(0.9, 0.8, prevalence=0.1)
    assert (float(ppv), float(npv)) == pytest.approx((0.09 / 0.27, 0.72 / 0.73))


def test_flags_by_hand() -> None:
    table = eight()
    found = flag_metrics(table, table.target_score("bad") >= 0.35, "bad", FAST, prevalence=0.1)
    assert found.counts == {"tp": 2, "fp": 2, "fn": 1, "tn": 3}
    values = {name: each.value for name, each in found.metrics.items()}
    assert values["sensitivity"] == pytest.approx(2 / 3)
    assert values["specificity"] == pytest.approx(3 / 5)
    assert (values["ppv"], values["npv"], values["flagged"]) == pytest.approx((2 / 4, 3 / 4, 4 / 8))
    assert values["ppv_at_prevalence"] == pytest.approx(0.1 * 2 / 3 / (0.1 * 2 / 3 + 0.9 * 2 / 5))
    assert {each.n for each in found.metrics.values()} == {4}, "patients, and one image of an unknown one"


def test_net_benefit_by_hand() -> None:
    frame = net_benefit(eight(), "bad", [0.25, 0.5], FAST)
    assert frame["threshold"].tolist() == [0.25, 0.5]
    assert frame["model"].tolist() == pytest.approx([3 / 8 - 2 / 8 / 3, 2 / 8 - 1 / 8])
    assert frame["all"].tolist() == pytest.approx([3 / 8 - 5 / 8 / 3, 3 / 8 - 5 / 8])
    assert (frame["low"] <= frame["model"]).all()
    assert (frame["model"] <= frame["high"]).all()
    with pytest.raises(ValueError, match="above 0, below 1"):
        net_benefit(eight(), "bad", [1.0], FAST)


def test_coverage_by_hand() -> None:
    table = eight()
    sets = np.stack([table.probabilities[:, 0] >= 0.5, table.probabilities[:, 1] >= 0.25], axis=1)
    found = set_coverage(table, sets, FAST, groups={"sex": ["f"] * 2 + ["m"] * 6})
    # bad images: {bad}, {bad}, both; good ones: {bad}, both, {good}, {good}, {good}
    assert {name: each.value for name, each in found.overall.metrics.items()} == pytest.approx(
        {"coverage": 7 / 8, "size": 10 / 8, "single": 6 / 8}
    )
    assert found.by_diagnosis["good"].metrics["coverage"].value == pytest.approx(4 / 5)
    assert found.by_group["sex"]["f"].metrics["coverage"].value == 1
    assert found.sizes == {1: 6, 2: 2}
    assert found.overall.note == "only 4 lesions: says little"
    nobody = set_coverage(table.select(table.actual == "bad"), sets[:3], FAST).by_diagnosis["good"]
    assert nobody.to_dict() == {"images": 0, "lesions": 0, "note": "not computable: no image"}


def test_groups_whose_sets_fall_short_are_named() -> None:
    rng = np.random.default_rng(0)
    ids = [f"i{number:03d}" for number in range(400)]
    actual = rng.permutation(["bad"] * 200 + ["good"] * 200)
    source = np.array(["easy"] * 300 + ["hard"] * 100)
    held = rng.random(400) < np.where(source == "hard", 0.6, 0.95)
    bad = np.where(actual == "bad", 0.8, 0.2)
    table = Predictions.build(ids, ids, probabilities=np.stack([1 - bad, bad], axis=1), actual=actual, taxonomy=TWO)
    sets = np.stack([held == (actual == "good"), held == (actual == "bad")], axis=1)
    found = set_coverage(table, sets, FAST, groups={"dataset": source.tolist()})
    short = found.shortfalls(0.9)
    assert ("dataset", "hard") in {(each.fact, each.group) for each in short}
    assert ("dataset", "easy") not in {(each.fact, each.group) for each in short}
    for each in short:
        chosen = {"": slice(None), "diagnosis": actual == each.group, "dataset": source == each.group}[each.fact]
        assert each.metrics.metrics["coverage"].value == pytest.approx(held[chosen].mean())
        assert binomtest(int(held[chosen].sum()), len(held[chosen]), 0.9).pvalue < 0.1  # 90 % intervals
    assert found.shortfalls(0.3) == []
