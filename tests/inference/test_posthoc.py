"""What an ensemble fits on validation, and its operating points over folds, each at its own thresholds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CODES, composed
from scipy.special import softmax
from sklearn.metrics import recall_score

from skinlesion.commands.compare import run
from skinlesion.config.inference import CompareConfig
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.calibration import calibrated, fit_temperature
from skinlesion.inference.posthoc import (
    FOLDS,
    better_scaling,
    cross_fitted,
    fit_calibration,
    fit_decisions,
    pooled_points,
    with_calibration,
    with_decision,
)
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import negative_log_likelihood
from skinlesion.metrics.estimate import BootstrapConfig

FAST = BootstrapConfig(100, 1, 0.95, "percentile")
MEL = CODES.index("mel")
POINT = {"target": "mel", "sensitivity": 0.8}
OTHER = {"target": "mel", "sensitivity": 0.7, "images": 5, "threshold": 0.1, "reached": 0.8}


def write_fold(folder: Path, rows: range, *, threshold: float | None, temperature: float = 1.0) -> Predictions:
    """A part's predictions and the ensemble.json beside them."""
    rng = np.random.default_rng(rows.start)
    ids = [f"image{row:03d}" for row in rows]
    table = Predictions.build(
        ids, ids, probabilities=rng.dirichlet(np.ones(7), len(ids)), actual=[CODES[row % 7] for row in rows]
    )
    table.write(folder / "predictions_test.csv")
    point = {**POINT, "images": 5, "threshold": threshold, "reached": 0.8}
    about = {"calibration": {"method": "temperature", "temperature": temperature}, "operating_points": [point]}
    (folder / "ensemble.json").write_text(json.dumps(about))
    return table


def test_each_part_is_flagged_at_its_own_thresholds_after_its_own_calibration(tmp_path: Path) -> None:
    settings = {"a": (range(40), 0.1, 2.0), "b": (range(40, 100), 0.3, 0.5)}
    counts = np.zeros(4, dtype=int)
    for name, (rows, threshold, temperature) in settings.items():
        table = write_fold(tmp_path / name, rows, threshold=threshold, temperature=temperature)
        raised = (
            calibrated(table.probabilities, {"method": "temperature", "temperature": temperature})[:, MEL] >= threshold
        )
        own = table.actual == "mel"
        counts += [(own & raised).sum(), (~own & raised).sum(), (own & ~raised).sum(), (~own & ~raised).sum()]
    (point,) = pooled_points([tmp_path / name / "predictions_test.csv" for name in settings], FAST)
    assert list(point.found.counts.values()) == counts.tolist()
    assert point.thresholds == [0.1, 0.3]
    reached = point.found.metrics["sensitivity"]
    assert reached.value == pytest.approx(counts[0] / (counts[0] + counts[2]))
    assert reached.low <= reached.value <= reached.high


def test_the_command_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold, rows in enumerate((range(35), range(35, 70))):
        write_fold(tmp_path / str(fold), rows, threshold=0.1)
    out = tmp_path / "c.json"
    run(
        composed(
            "compare", CompareConfig, f"tables=['{tmp_path}/*/predictions_test.csv']", f"out={out}", "resamples=100"
        )
    )
    ((name, (point,)),) = json.loads(out.read_text())["operating_points"].items()
    printed = capsys.readouterr().out
    assert f"Operating points of {name}" in printed
    assert f"{point['numbers']['specificity']['value']:.3f}" in printed


def test_tables_of_no_ensemble_and_of_the_part_that_chose_have_none(tmp_path: Path) -> None:
    write_fold(tmp_path, range(35), threshold=0.1)
    (tmp_path / "predictions_test.csv").rename(tmp_path / "predictions_val.csv")
    assert pooled_points([tmp_path / "predictions_val.csv"], FAST) == []
    write_fold(tmp_path, range(35), threshold=0.1)
    (tmp_path / "ensemble.json").write_text("{}")
    assert pooled_points([tmp_path / "predictions_test.csv"], FAST) == []
    (tmp_path / "ensemble.json").unlink()
    assert pooled_points([tmp_path / "predictions_test.csv"], FAST) == []


def test_a_part_without_a_threshold_leaves_the_point_out(tmp_path: Path) -> None:
    for fold, threshold in enumerate((0.1, None)):
        write_fold(tmp_path / str(fold), range(fold * 35, fold * 35 + 35), threshold=threshold)
    (point,) = pooled_points([tmp_path / str(fold) / "predictions_test.csv" for fold in (0, 1)], FAST)
    assert point.to_dict() == {**POINT, "thresholds": [0.1, None], "counts": None, "numbers": {}}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[]", CheckpointError, r"ensemble\.json: input should be an object"),
        ("{", CheckpointError, r"ensemble\.json: invalid JSON"),
        ('{"operating_points": [{"target": "mel"}]}', CheckpointError, r"0\.sensitivity: field required"),
        (json.dumps({"operating_points": [OTHER]}), DataError, "other than those of"),
    ],
)
def test_ensembles_that_do_not_go_together_are_refused(
    text: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    for fold in (0, 1):
        write_fold(tmp_path / str(fold), range(fold * 35, fold * 35 + 35), threshold=0.1)
    (tmp_path / "1" / "ensemble.json").write_text(text)
    with pytest.raises(error, match=said) as caught:
        pooled_points([tmp_path / str(fold) / "predictions_test.csv" for fold in (0, 1)], FAST)
    assert str(tmp_path / "1" / "ensemble.json") in str(caught.value)


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
    assert better_scaling(found) is None
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


def shifted(seed: int, *, images: int = 1500, each: int = 1) -> Predictions:
    """A table whose probabilities are the truth by class weights: too high for melanoma, too low for nevi."""
    table = too_sure(seed, images=images, sharp=1.0, each=each)
    weighted = table.probabilities * np.array([1, 1, 1, 1, 6, 0.3, 1])
    return table.with_probabilities(weighted / weighted.sum(axis=1, keepdims=True))


def test_auto_takes_the_simplest_scaling_that_is_as_good_as_the_best() -> None:
    calibrated_already = too_sure(11, images=1500, sharp=1.0)
    assert fit_calibration(calibrated_already, method="auto", bins=10)["method"] == "none"
    assert fit_calibration(too_sure(11, images=1500), method="auto", bins=10)["method"] == "temperature"
    assert fit_calibration(shifted(11), method="auto", bins=10)["method"] == "bias"


def test_the_noise_of_an_excess_is_that_of_lesions_drawn_again() -> None:
    table = shifted(12, images=600, each=3)
    found = fit_calibration(table, method="temperature", bins=10)["folds"]
    losses = {name: negative_log_likelihood(cross_fitted(table, name)) for name in ("temperature", "bias")}
    gap = losses["temperature"] - losses["bias"]
    assert found["temperature"]["excess"] == pytest.approx(gap.mean(), abs=1e-6)
    rng, lesions = np.random.default_rng(0), np.unique(table.lesion_id)
    by_lesion = {lesion: gap[table.lesion_id == lesion].mean() for lesion in lesions}  # three images each
    again = [np.mean([by_lesion[lesion] for lesion in rng.choice(lesions, len(lesions))]) for _ in range(500)]
    assert found["temperature"]["noise"] == pytest.approx(np.std(again), rel=0.12)


def test_a_configured_scaling_worse_than_another_by_more_than_noise_is_named() -> None:
    found = fit_calibration(shifted(13), method="temperature", bins=10)
    assert better_scaling(found) == "bias"
    assert better_scaling({**found, "method": "bias"}) is None
    assert (
        better_scaling({"method": "none", "folds": {"none": {"nll": 1.0}, "temperature": {"nll": 0.5}}}) is None
    )  # old


@pytest.mark.parametrize("method", ["bias", "vector"])
def test_the_vote_keeps_the_diagnosis(method: str, tmp_path: Path) -> None:
    table = shifted(14, images=600, each=2)
    scaled = with_calibration(table, fit_calibration(table, method=method, bins=10))
    assert (scaled.probabilities.argmax(axis=1) != table.predicted_targets).any()
    np.testing.assert_array_equal(scaled.predicted_targets, table.predicted_targets)
    rows = np.arange(len(table))
    np.testing.assert_array_equal(scaled.confidence, scaled.probabilities[rows, table.predicted_targets].astype(float))
    np.testing.assert_array_equal(scaled.by_group().predicted, table.by_group().predicted)
    scaled.write(tmp_path / "scaled.csv")
    again = Predictions.read(tmp_path / "scaled.csv")
    np.testing.assert_array_equal(again.predicted, table.predicted)
    np.testing.assert_array_equal(again.probabilities, scaled.probabilities)
    broken = (tmp_path / "scaled.csv").read_text().replace("likeliest\n", "likely\n", 1)
    (tmp_path / "scaled.csv").write_text(broken)
    with pytest.raises(DataError, match="unknown columns"):
        Predictions.read(tmp_path / "scaled.csv")


def test_the_balanced_decision_is_made_after_calibration() -> None:
    table = shifted(15)
    prior = dict(zip(CODES, np.bincount(table.targets, minlength=7) / len(table), strict=True))
    found = fit_calibration(table, method="bias", bins=10)
    decided = with_decision(table, {"rule": "balanced", "prior": prior}, found)
    by_hand = (calibrated(table.probabilities, found) / np.array(list(prior.values()))).argmax(axis=1)
    np.testing.assert_array_equal(decided.predicted_targets, by_hand)
    np.testing.assert_array_equal(with_calibration(decided, found).predicted_targets, by_hand)
    np.testing.assert_array_equal(decided.probabilities, table.probabilities)
    plain = with_decision(table, {"rule": "likeliest", "prior": prior}, found)
    recalls = [recall_score(each.targets, each.predicted_targets, average="macro") for each in (decided, plain)]
    assert recalls[0] > recalls[1]


def test_sets_are_fitted_on_probabilities_that_other_lesions_calibrated() -> None:
    table = shifted(16)
    found = fit_calibration(table, method="bias", bins=10)
    settings = {"sensitivities": [0.9], "alphas": [0.1], "score": "aps"}
    held_out = cross_fitted(table, "bias")
    decisions = fit_decisions(with_calibration(table, found), held_out=held_out, **settings)
    assert decisions["conformal"] == fit_decisions(held_out, **settings)["conformal"]
    assert (
        decisions["operating_points"] == fit_decisions(with_calibration(table, found), **settings)["operating_points"]
    )


def test_validation_of_one_diagnosis_is_not_calibrated() -> None:
    table = too_sure(3, images=20)
    table = replace(table, actual=np.full(20, "nv", dtype=object))
    found = fit_calibration(table, method="temperature", bins=10)
    assert found["method"] == "none"
    assert "not computable" in found["note"]
    np.testing.assert_array_equal(calibrated(table.probabilities, found), table.probabilities)
    assert better_scaling(found) is None
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
