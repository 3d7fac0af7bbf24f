"""Challenge CSVs: what the scorer reads of them, that they come back the same, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import composed
from metrics.test_challenge import FAST, random_table

from skinlesion.commands.evaluate import run
from skinlesion.config.evaluate import EvaluateConfig
from skinlesion.errors import DataError
from skinlesion.inference.predictions import build_table
from skinlesion.metrics.challenge import challenge
from skinlesion.metrics.challenge_csv import read_submission, write_submission, write_truth

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"


def labels_of(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["image_id"], table["actual"], strict=True))


def test_by_hand(tmp_path: Path) -> None:
    values = np.eye(7)[[4, 4]]
    values[1] = [0.25, 0, 0, 0, 0.5, 0.125, 0.125]
    table = build_table(["a", "b"], ["", ""], probabilities=values, actual=["mel", "nv"])
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
    lesions = dict(zip(table["image_id"], table["lesion_id"], strict=True))
    pd.testing.assert_frame_equal(
        read_submission(tmp_path / "submission.csv", actual=labels_of(table), lesions=lesions), table, check_exact=True
    )


@pytest.mark.filterwarnings("ignore:.*keyword in")  # the scorer's, of newer pandas
def test_the_scorer_reads_the_truth_and_the_numbers_of_an_entry(tmp_path: Path) -> None:
    """Its own reader of entries does not run on pandas 3 (`applymap`), so the entry is read as it reads it."""
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
    found = challenge(table, **FAST)
    assert found["balanced_accuracy"]["value"] == pytest.approx(scored.overall, abs=1e-9)
    assert found["macro_average"]["auc"]["value"] == pytest.approx(scored.macro_average["auc"], abs=1e-9)


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
def test_what_is_no_entry_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_submission(tmp_path / "submission.csv", actual={"a": "mel", "b": "nv"})
    assert said in str(caught.value)
    assert "submission.csv" in str(caught.value)


def test_ids_may_end_in_jpg(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text(f"{HEADER}\na.jpg,1,0,0,0,0,0,0\nb.JPG,0,1,0,0,0,0,0\n")
    table = read_submission(tmp_path / "submission.csv", actual={"a": "mel", "b": "nv"})
    assert table["predicted"].tolist() == ["mel", "nv"]
    with pytest.raises(DataError, match="cannot be read as text"):
        read_submission(tmp_path / "none.csv", actual={"a": "mel"})


def test_an_entry_is_judged_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinlesion.plots.predictions.DOTS_PER_INCH", 30)
    table = random_table(40, seed=3)
    write_submission(table, tmp_path / "mine.csv")
    labels = table[["image_id"]].assign(dx=table["actual"].replace("akiec", "SCC"))
    labels.loc[labels["dx"] == "df", "dx"] = "unk"
    labels.to_csv(tmp_path / "labels.csv", index=False)
    places = (f"submission={tmp_path / 'mine.csv'}", f"external.labels={tmp_path / 'labels.csv'}")
    run(composed("evaluate", EvaluateConfig, *places, "external.classes.unk=drop", "resamples=100"))
    kept = table[table["actual"] != "df"].reset_index(drop=True)
    report = json.loads((tmp_path / "mine" / "report_submission.json").read_text())
    assert report["images"] == len(kept)
    assert report["classes"]["scc"]["counts_as"] == "akiec"
    value = report["challenge"]["balanced_accuracy"]["value"]
    assert value == pytest.approx(challenge(kept, **FAST)["balanced_accuracy"]["value"], abs=1e-12)
    assert not list((tmp_path / "mine").glob("sample_sheet*"))
