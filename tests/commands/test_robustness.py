"""`robustness`: metrics against scikit-learn, the files written, and invalid settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from skinlesion.commands.robustness import run
from skinlesion.config.studies import RobustnessConfig
from skinlesion.config.train import TrainConfig
from skinlesion.errors import ConfigError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.plots.robustness import curves
from skinlesion.studies.robustness.detection import OodStatistic, flag_rates, ood_detection, picture_detection
from skinlesion.studies.robustness.study import (
    CorruptionResult,
    RobustnessResult,
    compare_predictions,
    majority_baseline,
)

CONFIG = BootstrapConfig(resamples=200)
RNG = np.random.default_rng(0)
ACTUAL = [CODES[k] for k in RNG.integers(0, 7, 60)]
IDS = [f"i{n:02d}" for n in range(60)]


def table(seed: int) -> Predictions:
    values = np.random.default_rng(seed).dirichlet(np.ones(7), 60) + 0.4 * np.eye(7)[[CODES.index(c) for c in ACTUAL]]
    probabilities = values / values.sum(axis=1, keepdims=True)
    return Predictions.build(IDS, [f"l{n // 2}" for n in range(60)], probabilities=probabilities, actual=ACTUAL)


def test_numbers_and_changes_are_those_of_scikit_learn() -> None:
    now, then = table(1), table(2)
    novel = np.arange(60) < 15
    found = compare_predictions(replace(now, ood=novel), replace(then, ood=np.zeros(60, dtype=bool)), CONFIG)
    balanced = [balanced_accuracy_score(each.actual, each.predicted) for each in (now, then)]
    assert found["balanced_accuracy"].value == pytest.approx(balanced[0])
    assert found["change_balanced_accuracy"].value == pytest.approx(balanced[0] - balanced[1])
    assert found["macro_f1"].value == pytest.approx(f1_score(now.actual, now.predicted, average="macro"))
    melanoma = now.select(now.actual == "mel")
    assert found["recall_mel"].value == pytest.approx((melanoma.predicted == "mel").mean())
    assert found["same"].value == pytest.approx((now.predicted == then.predicted).mean())
    assert found["novel"].value == 0.25
    assert found["change_accuracy"].low < found["change_accuracy"].value < found["change_accuracy"].high


def test_the_same_images_do_not_change() -> None:
    found = compare_predictions(table(1), table(1), CONFIG)
    assert found["same"].value == 1
    assert [getattr(found["change_macro_f1"], end) for end in ("value", "low", "high")] == [0, None, None]
    assert "novel" not in found


def test_the_majority_baseline() -> None:
    actual = ["nv"] * 8 + ["mel"] * 2
    rows = Predictions.build(IDS[:10], [""] * 10, probabilities=np.tile(np.eye(7)[0], (10, 1)), actual=actual)
    found = majority_baseline(rows)
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["macro_f1"] == pytest.approx(f1_score(actual, ["nv"] * 10, average="macro"))


def test_ood_detection_by_hand() -> None:
    scores, others = np.array([0.0, 0.5, 1.2, 0.4]), np.array([0.4, 1.1, 3.0, 4.0])
    found = ood_detection(scores, others, np.array([0, 1, 1, 2]), threshold=1.0, config=CONFIG)
    assert found.pictures == 4
    assert found.auroc.value == pytest.approx(roc_auc_score([0] * 4 + [1] * 4, [*scores, *others]))
    assert found.flagged.value == 0.75


def test_pictures_that_are_not_made_from_the_images_count_once() -> None:
    scores, pictures = np.array([0.0, 0.5, 1.2, 0.4]), np.array([0.4, 3.0])
    found = picture_detection(scores, pictures, np.array([0, 1, 1, 2]), threshold=1.0, config=CONFIG)
    assert found.pictures == 2
    assert found.auroc.value == pytest.approx(roc_auc_score([0] * 4 + [1] * 2, [*scores, *pictures]))
    exact = binomtest(1, 2).proportion_ci(0.95, "exact")
    assert (found.flagged.value, found.flagged.low, found.flagged.high) == pytest.approx((0.5, exact.low, exact.high))


def test_flag_rates_by_group() -> None:
    flags = np.array([True, False, True, False, False, False, True, True])
    ids = [f"i{number}" for number in range(8)]
    table = Predictions.build(
        ids, [f"L{number // 2}" for number in range(8)], probabilities=np.tile(np.eye(7)[5], (8, 1))
    )
    groups = {"diagnosis": ["nv"] * 6 + ["df"] * 2, "dataset": ["a", "b"] * 4}
    found = flag_rates(replace(table, ood=flags), groups, CONFIG)
    assert {name: each.value for name, each in found["diagnosis"].items()} == pytest.approx({"df": 1.0, "nv": 2 / 6})
    assert {name: each.value for name, each in found["dataset"].items()} == pytest.approx({"a": 3 / 4, "b": 1 / 4})
    assert found["diagnosis"]["df"].method == "clopper_pearson"  # one lesion: 1 of 1
    assert found["diagnosis"]["df"].low == pytest.approx(0.025)


def test_a_lesion_is_resampled_with_its_other_images() -> None:
    scores, others = RNG.normal(size=12), RNG.normal(1, size=12)
    index = np.arange(12) // 2
    above = (others[:, None] > scores).reshape(6, 2, 6, 2).sum(axis=(1, 3))
    statistic = OodStatistic(above.astype(float), (others > 1).reshape(6, 2).sum(axis=1).astype(float), np.full(6, 2.0))
    weights = np.array([[2, 0, 1, 3, 0, 0]], dtype=float)
    rows = np.repeat(np.arange(12), weights[0].astype(int)[index])
    labels = [0] * len(rows) + [1] * len(rows)
    drawn = statistic.resampled(weights)
    assert drawn["auroc"][0] == pytest.approx(roc_auc_score(labels, [*scores[rows], *others[rows]]))
    assert drawn["flagged"][0] == pytest.approx((others[rows] > 1).mean())
    wide = ood_detection(scores, others, index, threshold=1.0, config=CONFIG).auroc
    assert wide.low < wide.value < wide.high
    assert wide.value == pytest.approx(statistic.resampled(np.ones((1, 6)))["auroc"][0])


@pytest.fixture(scope="module")
def written(trained: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("robustness")
    without = (f"~steps.{name}" for name in ("hair", "ruler", "vignette", "brightness", "colour", "skin_tone"))
    few = ("resamples=100", "images=12", "steps.blur=[4]", "steps.jpeg=[10]", "steps.lesion_removed=[0.5,1]", *without)
    run(composed("robustness", RobustnessConfig, f"checkpoint={trained.out}", "split=test", f"out={out}", *few))
    return out


def test_numbers_and_figures_are_written(written: Path, trained: TrainConfig) -> None:
    found = json.loads((written / "robustness.json").read_text())
    assert found["images_judged"] == 12
    assert set(found["images"]) == {"blur", "jpeg", "lesion_removed"}, (
        "given steps replace those of the configuration file"
    )
    assert set(found["facts"]) >= {"no_age", "nothing_known", "permuted"}
    rows = pd.read_csv(written / "robustness.csv")
    one = rows.query("name == 'lesion_removed' and step == 0.5 and number == 'macro_f1'")
    expected = found["images"]["lesion_removed"]["steps"][0]["numbers"]["macro_f1"]["value"]
    assert one.value.item() == pytest.approx(expected)
    drawn = {path.name for path in written.glob("*.png")}
    assert drawn == {"disturbed.png", "lesion_removed.png", "facts.png", "novelty.png"}


def test_out_of_distribution_images_are_detected(written: Path) -> None:
    found = json.loads((written / "robustness.json").read_text())
    assert set(found["novelty"]["pictures"]) >= {"noise", "text", "hand", "photograph", "negative"}
    assert found["novelty"]["pictures"]["photograph"]["pictures"] == 2
    assert set(found["novelty"]["flag_rates"]) >= {"diagnosis", "dataset", "dx_type"}
    assert found["novelty"]["pictures"]["noise"]["auroc"]["value"] > 0.9
    assert 0 <= found["undisturbed"]["numbers"]["novel"]["value"] < 0.5


def test_the_original_images_are_predicted_as_in_training(written: Path, trained: TrainConfig) -> None:
    own = pd.read_csv(Path(trained.out) / "predictions_test.csv")
    found = json.loads((written / "robustness.json").read_text())["undisturbed"]["numbers"]["accuracy"]["value"]
    drawn = np.random.default_rng(1).choice(len(own), 12, replace=False)
    rows = own.sort_values("image_id", ignore_index=True).loc[drawn]
    assert found == pytest.approx((rows["actual"] == rows["predicted"]).mean())


def test_the_original_images_are_drawn_at_the_neutral_step() -> None:
    numbers = compare_predictions(table(1), table(2), CONFIG)
    corruptions = {
        "blur": CorruptionResult("sigma", 0, {4: numbers}),
        "jpeg": CorruptionResult("quality", 100, {10: numbers, 50: numbers}),
    }
    figure = curves(RobustnessResult("test", 60, 30, "none", 0.95, numbers, {}, corruptions, {}, None))
    labels = {axes.get_title(): [text.get_text() for text in axes.get_xticklabels()] for axes in figure.axes[:2]}
    assert labels["blur: sigma"] == ["original", "4"]
    assert labels["JPEG compression: quality"] == ["original", "50", "10"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+steps.haar=[1]", "steps=haar: expected one of hair"),
        ("steps.jpeg=[0]", "steps.jpeg"),
        ("images=1", "images=1"),
        ("id_pass_rate=1.5", "id_pass_rate=1.5"),
        ("interval=wide", "interval=wide: expected one of bca, percentile"),
        ("split=train", "split=train"),
    ],
)
def test_invalid_settings_are_refused(override: str, said: str, trained: TrainConfig) -> None:
    with pytest.raises(ConfigError) as caught:
        run(composed("robustness", RobustnessConfig, f"checkpoint={trained.out}", "split=test", override))
    assert said in str(caught.value)
