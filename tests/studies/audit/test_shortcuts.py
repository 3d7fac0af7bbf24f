"""Columns that give the diagnosis away are found out, those that do not are not."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES

from skinlesion.data.splits import published
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.metrics.summary import groups_of, strata_of
from skinlesion.studies.audit.summary import binary_shortcuts, shortcuts

shared = os.environ.get("SKINLESION_SHARED")


def frame_of(n: int = 300) -> pd.DataFrame:
    """Half nevi, a third melanomas, a sixth vascular; dx_type gives the diagnosis, the patient tells nothing."""
    rng = np.random.default_rng(0)
    diagnosis = np.resize(["nv", "nv", "nv", "mel", "mel", "vasc"], n)
    return pd.DataFrame(
        {
            "image_id": [f"i{number:04d}" for number in range(n)],
            "lesion_id": [f"l{number // 2:04d}" for number in range(n)],
            "diagnosis": diagnosis,
            "age": np.where(rng.uniform(size=n) < 0.1, np.nan, rng.integers(0, 18, n) * 5.0),
            "sex": rng.choice(["female", "male", "unknown"], n),
            "localization": rng.choice(["back", "face"], n),
            "dx_type": pd.Series(diagnosis).map({"nv": "follow_up", "mel": "histo", "vasc": "consensus"}),
            "dataset": "",
        }
    )


def split_of(frame: pd.DataFrame) -> pd.DataFrame:
    names = np.repeat(["train", "val", "test"], len(frame) // 3)
    return frame[["image_id", "lesion_id"]].assign(split=names)


def test_majority_by_hand() -> None:
    frame = frame_of()
    scores = shortcuts(frame, split_of(frame))["majority"]
    actual = frame["diagnosis"].to_numpy()[100:200]
    right = (actual == "nv").mean()  # all are called nevi: recall 1, precision as many as there are
    assert scores is not None
    assert scores["accuracy"] == pytest.approx(right)
    assert scores["balanced_accuracy"] == pytest.approx(1 / 3)
    assert scores["macro_f1"] == pytest.approx(2 * right / (1 + right) / 3)


def test_a_column_that_gives_the_diagnosis_away_is_found_out() -> None:
    frame = frame_of()
    scores = shortcuts(frame, split_of(frame))
    assert scores["dx_type"] == {"accuracy": 1.0, "macro_f1": 1.0, "balanced_accuracy": 1.0}
    assert scores["metadata"] is not None
    assert scores["metadata"]["balanced_accuracy"] < 0.6
    assert scores["dataset"] is None


def test_ages_are_used_also_where_some_are_missing() -> None:
    frame = frame_of()
    frame["age"] = frame["diagnosis"].map({"nv": 20.0, "mel": 60.0, "vasc": np.nan})
    scores = shortcuts(frame, split_of(frame))["metadata"]
    assert scores is not None
    assert scores["accuracy"] == 1.0


def test_words_that_train_never_saw_do_no_harm() -> None:
    frame = frame_of()
    frame.loc[100:199, "localization"] = "scalp"
    frame.loc[100:199, "dx_type"] = "confocal"
    scores = shortcuts(frame, split_of(frame))
    assert scores["dx_type"] is not None
    assert scores["dx_type"]["balanced_accuracy"] == pytest.approx(1 / 3)  # one answer for all


def test_test_rows_are_left_alone() -> None:
    frame = frame_of()
    split = split_of(frame)
    changed = frame.copy()
    rows = split["split"] == "test"
    changed.loc[rows, "diagnosis"] = "bcc"
    changed.loc[rows, ["age", "sex", "dx_type"]] = [5.0, "male", "histo"]
    assert shortcuts(changed, split) == shortcuts(frame, split)
    shuffled = frame.sample(frac=1, random_state=0)
    for name, scores in shortcuts(shuffled, split).items():
        assert scores == (pytest.approx(expected) if (expected := shortcuts(frame, split)[name]) else None)


def test_the_camera_ranks_melanoma_as_its_share_of_them() -> None:
    frame, few = frame_of(), BootstrapConfig(50)
    of_camera = {"nv": "a", "mel": "b", "vasc": "b"}
    frame["dataset"] = frame["diagnosis"].map(of_camera)
    found = binary_shortcuts(frame, split_of(frame), few)["dataset"]
    kept = frame.head(200)  # without test
    is_mel, is_b = kept["diagnosis"] == "mel", kept["dataset"] == "b"
    expected = 0.5 * (is_b[is_mel].mean() + 1 - is_b[~is_mel].mean())  # of two values: the mean of both rates
    assert found is not None
    assert found["all"]["mel"].value == pytest.approx(expected, abs=0.01)  # regressions differ a little
    assert found["all"]["malignant"].value == pytest.approx(expected, abs=0.01)  # the only malignant diagnosis
    assert found["histology"]["mel"].value is None  # all of them are melanomas
    assert found["all"]["mel"].low < expected < found["all"]["mel"].high


def test_what_tells_nothing_ranks_at_chance() -> None:
    frame = frame_of().assign(dx_type="histo", sex="unknown", localization="unknown", age=np.nan)
    found = binary_shortcuts(frame, split_of(frame), BootstrapConfig(50))
    for strata in (found["metadata"], found["dx_type"]):
        assert strata is not None
        assert strata["all"]["mel"].value == pytest.approx(0.5, abs=0.06)
        assert strata["histology"] == strata["all"]
    assert found["dataset"] is None


@pytest.mark.real_data
@pytest.mark.skipif(shared is None, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_real_columns_give_diagnoses_away() -> None:
    table = pd.read_csv(Path(str(shared)) / "ham10000" / "HAM10000_metadata")
    frame = table.rename(columns={"dx": "diagnosis"}).sort_values("image_id", ignore_index=True)
    measured = shortcuts(frame, published(frame, seed=1))
    scores = {name: metrics["balanced_accuracy"] for name, metrics in measured.items() if metrics}
    assert scores["majority"] == pytest.approx(1 / 7)
    assert all(scores[name] > 0.22 for name in ("metadata", "dx_type", "dataset"))
    camera = binary_shortcuts(frame, published(frame, seed=1), BootstrapConfig(50))["dataset"]
    assert camera is not None
    assert camera["all"]["mel"].value == pytest.approx(0.71, abs=0.015)
    assert camera["all"]["malignant"].value == pytest.approx(0.765, abs=0.015)
    assert camera["histology"]["malignant"].value < 0.57  # among confirmed images it tells little


@pytest.mark.real_data
@pytest.mark.skipif(shared is None, reason="SKINLESION_SHARED is not set: real HAM10000 needed")
def test_the_camera_alone_is_an_operating_point_on_the_published_test_part() -> None:
    table = pd.read_csv(Path(str(shared)) / "ham10000" / "HAM10000_metadata").sort_values("image_id", ignore_index=True)
    split = published(table.rename(columns={"dx": "diagnosis"}), seed=666)
    test = table[table["image_id"].isin(split.loc[split["split"] == "test", "image_id"])].reset_index(drop=True)
    none = np.full((len(test), len(CODES)), 1 / len(CODES))
    ids, lesions, actual = (test[name].tolist() for name in ("image_id", "lesion_id", "dx"))
    predictions = Predictions.build(ids, lesions, probabilities=none, actual=actual)
    (_, without, histology) = strata_of(predictions, groups_of(predictions, test)).items()
    assert without[0] == "without vidir_molemax"  # derived from the data
    assert histology[1].sum() == (test["dx_type"] == "histo").sum()
    malignant = test["dx"].isin(("mel", "bcc", "akiec")).to_numpy()
    assert (test["dx"] == "nv").sum() - (without[1] & (test["dx"] == "nv")).sum() == 431  # of 495 nevi
    flagged = without[1]  # "not MoleMax = malignant"
    assert (flagged & malignant).sum() / malignant.sum() == pytest.approx(0.952, abs=5e-4)
    assert (~flagged & ~malignant).sum() / (~malignant).sum() == pytest.approx(0.823, abs=5e-4)
