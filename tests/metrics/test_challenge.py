"""The challenge's metrics against its own scorer and against its formulae image by image; and its CSV files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from conftest import CODES, composed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from skinlesion.commands.evaluate import run
from skinlesion.config.inference import EvaluateConfig
from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.challenge import (
    METRICS,
    UNSCORED,
    challenge_scores,
    read_submission,
    write_submission,
    write_truth,
)
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.taxonomy import HAM10000

FAST = BootstrapConfig(100, 1, 0.9, "percentile")


def random_table(images: int, *, seed: int, codes: int = 7, tied: bool = False) -> Predictions:
    """A table of lesions with one or two images; `tied` rounds so that probabilities are often equal."""
    rng = np.random.default_rng(seed)
    actual = (
        np.append(np.arange(codes), rng.integers(0, codes, images - codes)) if images >= codes else np.zeros(images)
    )
    values = np.exp(rng.normal(size=(images, 7)) + 1.5 * np.eye(7)[actual.astype(int)])
    values /= values.sum(axis=1, keepdims=True)
    if tied:
        values = np.eye(7)[rng.integers(0, 7, images)] / 4 + np.eye(7)[rng.integers(0, 7, images)] / 2
        values += np.eye(7)[actual.astype(int)] / 4
    return Predictions.build(
        [f"I{number:05d}" for number in range(images)],
        [f"H{number // 2}" if number % 3 else "" for number in range(images)],
        probabilities=values,
        actual=[CODES[int(k)] for k in actual],
    )


def partial_area(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64], sensitivity: float) -> float:
    """Go along the ROC curve, score by score, and add up the trapezoids above the sensitivity."""
    x0 = y0 = area = 0.0
    for threshold in sorted(set(score), reverse=True):
        y1 = float((score[positive] >= threshold).sum() / positive.sum())
        x1 = float((score[~positive] >= threshold).sum() / (~positive).sum())
        if y1 >= sensitivity:
            left, low = (
                (x0, y0)
                if y0 >= sensitivity
                else (
                    x0 + (x1 - x0) * (sensitivity - y0) / (y1 - y0),
                    sensitivity,
                )
            )
            area += (x1 - left) * (low + y1) / 2
        x0, y0 = x1, y1
    return area


def by_formula(table: Predictions) -> dict[str, dict[str, float]]:
    actual, values = table.targets, table.probabilities.astype(np.float64)
    found: dict[str, dict[str, float]] = {}
    for code in HAM10000.submission_order:
        k = CODES.index(code)
        cells = {"tp": 0, "tn": 0, "fp": 0, "fn": 0}
        for own, value in zip(actual == k, values[:, k], strict=True):
            cells[("tp" if own else "fp") if value > 0.5 else ("fn" if own else "tn")] += 1
        tp, tn, fp, fn = (cells[name] for name in ("tp", "tn", "fp", "fn"))
        found[code.upper()] = {
            "accuracy": (tp + tn) / len(table),
            "sensitivity": tp / (tp + fn) if tp + fn else 1,
            "specificity": tn / (tn + fp) if tn + fp else 1,
            "dice": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1,
            "ppv": tp / (tp + fp) if tp + fp else 1,
            "npv": tn / (tn + fn) if tn + fn else 1,
            "auc": sk.roc_auc_score(actual == k, values[:, k]),
            "auc_sens_80": partial_area(actual == k, values[:, k], 0.8),
            "ap": sk.average_precision_score(actual == k, values[:, k]),
        }
    return found


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(8, 90), tied=st.booleans())
def test_every_number_is_that_of_its_formula(seed: int, images: int, tied: bool) -> None:
    table = random_table(images, seed=seed, tied=tied)
    found, expected = challenge_scores(table, FAST), by_formula(table)
    for code, each in expected.items():
        for name in METRICS:
            assert found.per_category[code][name].value == pytest.approx(each[name], abs=1e-9), (code, name)
    for name in METRICS:
        mean = np.mean([each[name] for each in expected.values()])
        assert found.macro_average[name].value == pytest.approx(mean, abs=1e-9)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # the scorer's, of newer pandas
@pytest.mark.parametrize(("seed", "tied"), [(0, False), (1, True), (2, True)])
def test_every_number_is_that_of_the_scorer(seed: int, tied: bool) -> None:
    scoring = pytest.importorskip("isic_challenge_scoring", reason="pip install 'skinlesion[challenge]'")
    table = random_table(400, seed=seed, tied=tied)
    names = [code.upper() for code in HAM10000.submission_order]
    columns = [CODES.index(code) for code in HAM10000.submission_order]
    told = pd.DataFrame(table.probabilities[:, columns].astype(np.float64), table.image_id, names)
    truth = pd.DataFrame(np.eye(7)[table.targets][:, columns], table.image_id, names)
    weights = pd.DataFrame(1.0, table.image_id, ["score_weight", "validation_weight"])
    scored = scoring.ClassificationScore(truth, told, weights, scoring.ClassificationMetric.BALANCED_ACCURACY)
    found = challenge_scores(table, FAST)
    assert found.balanced_accuracy.value == pytest.approx(scored.overall, abs=1e-9)
    assert tuple(scored.per_category.columns) == METRICS
    for name in METRICS:
        assert found.macro_average[name].value == pytest.approx(scored.macro_average[name], abs=1e-9)
        for code in names:
            value = found.per_category[code][name].value
            assert value == pytest.approx(scored.per_category.loc[code, name], abs=1e-9), (code, name)


def test_the_partial_area_by_hand() -> None:
    """Five melanomas and four others: the fourth of five is reached after one other, the fifth after three."""
    order = [(1, 0.9), (1, 0.8), (1, 0.7), (0, 0.65), (1, 0.6), (0, 0.55), (0, 0.5), (1, 0.4), (0, 0.3)]
    values = np.zeros((9, 7))
    values[:, CODES.index("mel")] = [score for _, score in order]
    values[:, CODES.index("nv")] = 1 - values[:, CODES.index("mel")]
    actual = ["mel" if own else "nv" for own, _ in order]
    table = Predictions.build([f"I{k}" for k in range(9)], [""] * 9, probabilities=values, actual=actual)
    found = challenge_scores(table, FAST).per_category["MEL"]["auc_sens_80"].value
    assert found == pytest.approx(2 / 4 * 0.8 + 1 / 4 * 1.0, abs=1e-12)


def test_a_shared_highest_probability_is_no_prediction() -> None:
    values = np.zeros((2, 7))
    values[:, [1, 4]] = 0.5
    values[1, [1, 4]] = 0.4, 0.6
    table = Predictions.build(["a", "b"], ["", ""], probabilities=values, actual=["bcc", "mel"])
    assert table.predicted.tolist() == ["bcc", "mel"]
    assert challenge_scores(table, FAST).balanced_accuracy.value == 0.5


def test_intervals_are_those_of_a_loop_over_resamples() -> None:
    table = random_table(60, seed=3)
    found = challenge_scores(table, replace(FAST, resamples=400))
    rng = np.random.default_rng(7)
    names = list(dict.fromkeys(lesion or image for lesion, image in zip(table.lesion_id, table.image_id, strict=True)))
    rows = {name: np.flatnonzero((table.lesion_id == name) | (table.image_id == name)) for name in names}
    values = []
    for _ in range(400):
        drawn = np.concatenate([rows[name] for name in rng.choice(names, len(names))])
        positive = table.targets[drawn] == CODES.index("nv")
        if positive.any():
            values.append(partial_area(positive, table.probabilities[drawn, CODES.index("nv")].astype(float), 0.8))
    each = found.per_category["NV"]["auc_sens_80"]
    spread = np.std(values)
    expected = np.quantile(values, [0.05, 0.95])
    assert (each.low, each.high) == pytest.approx(tuple(expected), abs=0.35 * spread)


def test_a_ratio_without_denominator_has_a_note() -> None:
    table = random_table(50, seed=4, codes=6)  # none of vasc
    found = challenge_scores(table, FAST)
    vasc = found.per_category["VASC"]
    assert vasc["sensitivity"].value == 1
    assert vasc["sensitivity"].note.startswith("1 by the challenge's convention: no image of VASC")
    for name in ("auc", "auc_sens_80", "ap"):
        assert vasc[name].value is None
        assert vasc[name].note == "not computable: no image of VASC"
        assert found.macro_average[name].note.startswith("the mean of 6 of 7 diagnoses")
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_row_and_one_class() -> None:
    for images in (1, 5):
        table = random_table(images, seed=5)
        found = challenge_scores(table, replace(FAST, method="bca"))
        only = found.per_category[table.actual[0].upper()]
        assert only["auc"].note.startswith("not computable: every image is")
        assert only["specificity"].note.startswith("1 by the challenge's convention: every image is")
        assert only["ap"].value == 1
        json.dumps(found.to_dict(), allow_nan=False)


def test_the_image_without_weight_is_left_out() -> None:
    table = random_table(30, seed=6)
    unscored = replace(table.select(np.arange(1)), image_id=np.array([UNSCORED], dtype=object))
    assert challenge_scores(Predictions.concatenate([table, unscored]), FAST) == challenge_scores(table, FAST)
    with pytest.raises(DataError, match="no image to score"):
        challenge_scores(unscored, FAST)


HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"


def labels_of(table: Predictions) -> dict[str, str]:
    return dict(zip(table.image_id, table.actual, strict=True))


def test_by_hand(tmp_path: Path) -> None:
    values = np.eye(7)[[4, 4]]
    values[1] = [0.25, 0, 0, 0, 0.5, 0.125, 0.125]
    table = Predictions.build(["a", "b"], ["", ""], probabilities=values, actual=["mel", "nv"])
    write_submission(table, tmp_path / "submission.csv")
    write_truth(table, tmp_path / "truth.csv")
    entry = (tmp_path / "submission.csv").read_text().splitlines()
    assert entry[0] == HEADER
    assert [float(value) for value in entry[2].split(",")[1:]] == [0.5, 0.125, 0, 0.25, 0, 0, 0.125]
    assert all("." in value for line in entry[1:] for value in line.split(",")[1:])
    truth = (tmp_path / "truth.csv").read_text().splitlines()
    assert [[float(value) for value in line.split(",")[1:]] for line in truth[1:]] == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
    ]


def test_it_comes_back_the_same(tmp_path: Path) -> None:
    table = random_table(60, seed=1)
    write_submission(table, tmp_path / "submission.csv")
    lesions = dict(zip(table.image_id, table.lesion_id, strict=True))
    read = read_submission(tmp_path / "submission.csv", actual=labels_of(table), lesions=lesions)
    pd.testing.assert_frame_equal(read.to_frame(), table.to_frame(), check_exact=True)


@pytest.mark.filterwarnings("ignore:.*keyword in")  # the scorer's, of newer pandas
def test_the_scorer_reads_the_truth_and_the_numbers_of_a_submission(tmp_path: Path) -> None:
    """Its own reader of submissions does not run on pandas 3 (`applymap`), so the file is read as it reads it."""
    scoring = pytest.importorskip("isic_challenge_scoring", reason="pip install 'skinlesion[challenge]'")
    from isic_challenge_scoring.load_csv import parse_truth_csv

    table = random_table(300, seed=2)
    write_submission(table, tmp_path / "submission.csv")
    write_truth(table, tmp_path / "truth.csv")
    with (tmp_path / "truth.csv").open() as file:
        truth, weights = parse_truth_csv(file)
    entry = pd.read_csv(tmp_path / "submission.csv", index_col="image")
    assert (entry.dtypes == np.float64).all()
    scored = scoring.ClassificationScore(truth, entry, weights, scoring.ClassificationMetric.BALANCED_ACCURACY)
    found = challenge_scores(table, FAST)
    assert found.balanced_accuracy.value == pytest.approx(scored.overall, abs=1e-9)
    assert found.macro_average["auc"].value == pytest.approx(scored.macro_average["auc"], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEADER}\na,1,0,0,0,0,0,0\n", "no row for 1 of 2 images: b"),
        (f"{HEADER}\na,1,0,0,0,0,0,0\nb,1,0,0,0,0,0,0\nc,1,0,0,0,0,0,0\n", "images that have no label: 'c' (line 4)"),
        (f"{HEADER}\na,1,0,0,0,0,0,0\na,1,0,0,0,0,0,0\nb,1,0,0,0,0,0,0\n", "image in more than one row: 'a'"),
        (f"{HEADER}\na,nan,0,0,0,0,0,0\nb,1,0,0,0,0,0,0\n", "a probability is no number from 0 to 1: row 1 (a)"),
        (f"{HEADER}\na,0.5,0,0,0,0,0,0\nb,1,0,0,0,0,0,0\n", "the probabilities do not sum to 1: row 1 (a)"),
        (f"{HEADER}\na,2,0,0,0,0,0,0\nb,1,0,0,0,0,0,0\n", "a probability is no number from 0 to 1"),
        (f"{HEADER},SCC\na,1,0,0,0,0,0,0,0\nb,1,0,0,0,0,0,0,0\n", "unknown column scc"),
        ("image,MEL\na,1\nb,1\n", "no column nv, bcc"),
        (f"{HEADER}\n", "no rows below the header"),
        ("", "the file is empty"),
    ],
)
def test_what_is_no_submission_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_submission(tmp_path / "submission.csv", actual={"a": "mel", "b": "nv"})
    assert said in str(caught.value)
    assert "submission.csv" in str(caught.value)


def test_ids_may_end_in_jpg(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text(f"{HEADER}\na.jpg,1,0,0,0,0,0,0\nb.JPG,0,1,0,0,0,0,0\n")
    table = read_submission(tmp_path / "submission.csv", actual={"a": "mel", "b": "nv"})
    assert table.predicted.tolist() == ["mel", "nv"]
    with pytest.raises(DataError, match="cannot be read as text"):
        read_submission(tmp_path / "none.csv", actual={"a": "mel"})


def test_columns_of_a_submission_may_stand_in_any_order_and_diagnoses_may_be_absent(tmp_path: Path) -> None:
    table = random_table(60, seed=4)
    table = table.select((table.actual != "df") & (table.actual != "vasc"))
    write_submission(table, tmp_path / "entry.csv")
    entry = pd.read_csv(tmp_path / "entry.csv")
    entry[["VASC", "image", "AKIEC", "MEL", "BCC", "DF", "NV", "BKL"]].to_csv(tmp_path / "other.csv", index=False)
    read = [read_submission(tmp_path / name, actual=labels_of(table)) for name in ("entry.csv", "other.csv")]
    pd.testing.assert_frame_equal(read[1].to_frame(), read[0].to_frame(), check_exact=True)
    assert (read[1].predicted == entry.set_index("image").idxmax(axis=1).str.lower()[read[1].image_id]).all()
    recalls = sk.recall_score(
        read[1].actual, read[1].predicted, average=None, labels=["akiec", "bcc", "bkl", "mel", "nv"]
    )
    assert challenge_scores(read[1], FAST).balanced_accuracy.value == pytest.approx(recalls.mean(), abs=1e-12)


def test_a_submission_is_scored_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinlesion.plots.style.DOTS_PER_INCH", 30)
    table = random_table(40, seed=3)
    write_submission(table, tmp_path / "mine.csv")
    labels = table.to_frame()[["image_id"]].assign(dx=table.to_frame()["actual"].replace("akiec", "SCC"))
    labels.loc[labels["dx"] == "df", "dx"] = "unk"
    labels.to_csv(tmp_path / "labels.csv", index=False)
    places = (f"submission={tmp_path / 'mine.csv'}", f"external.labels={tmp_path / 'labels.csv'}")
    run(composed("evaluate", EvaluateConfig, *places, "+external.classes.unk=drop", "resamples=100"))
    kept = table.select(table.actual != "df")
    report = json.loads((tmp_path / "mine" / "report_submission.json").read_text())
    assert report["images"] == len(kept)
    assert report["classes"]["scc"]["counts_as"] == "akiec"
    value = report["challenge"]["balanced_accuracy"]["value"]
    assert value == pytest.approx(challenge_scores(kept, FAST).balanced_accuracy.value, abs=1e-12)
    assert not list((tmp_path / "mine").glob("sample_sheet*"))
