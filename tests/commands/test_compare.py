"""Tables against the first of them: names, pooling, and differences that agree with the tables' own numbers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import composed
from sklearn.metrics import f1_score

from skinlesion.commands.compare import run
from skinlesion.config.evaluate import CompareConfig
from skinlesion.errors import DataError
from skinlesion.inference.predictions import build_table, write_table
from skinlesion.metrics.compare import compared, names_of, read_pooled
from skinlesion.taxonomy import CODES

SETTINGS = {"resamples": 200, "seed": 1, "level": 0.95, "method": "percentile", "bins": 10}


def table(rows: range, *, right: float, seed: int = 0) -> pd.DataFrame:
    """Predictions of which a share is right."""
    rng = np.random.default_rng(seed)
    actual = np.array([row % 7 for row in rows])
    said = np.where(rng.random(len(actual)) < right, actual, (actual + 1) % 7)
    probabilities = np.full((len(actual), 7), 0.05)
    probabilities[np.arange(len(actual)), said] = 0.7
    ids = [f"image{row:04d}" for row in rows]
    return build_table(ids, ids, probabilities=probabilities, actual=[CODES[k] for k in actual])


def test_a_table_is_named_by_what_sets_it_apart() -> None:
    assert names_of(["runs/full/predictions_val.csv", "runs/no_gate/predictions_val.csv"]) == ["full", "no_gate"]
    assert names_of(["a/x/val.csv", "a/x/test.csv"]) == ["val.csv", "test.csv"]
    assert names_of(["runs/*/one/t.csv", "runs/*/two/t.csv"]) == ["one", "two"]
    assert names_of(["runs/full/predictions_val.csv"]) == ["full"]


def test_a_pattern_pools_its_files(tmp_path: Path) -> None:
    whole = table(range(60), right=0.7)
    for fold in range(3):
        write_table(whole.iloc[fold * 20 : fold * 20 + 20], tmp_path / f"fold{fold}" / "predictions_test.csv")
    pooled = read_pooled(str(tmp_path / "*" / "predictions_test.csv"))
    pd.testing.assert_frame_equal(pooled, whole)
    write_table(whole.iloc[:5], tmp_path / "fold3" / "predictions_test.csv")
    with pytest.raises(DataError, match="5 images are in two"):
        read_pooled(str(tmp_path / "*" / "predictions_test.csv"))
    with pytest.raises(DataError, match=r"nothing\.csv"):
        read_pooled(str(tmp_path / "nothing.csv"))


def test_differences_are_those_of_the_tables() -> None:
    tables = {"good": table(range(300), right=0.9), "bad": table(range(300), right=0.5, seed=1)}
    found = compared(tables, **SETTINGS)  # type: ignore[arg-type]
    macro = {name: f1_score(each["actual"], each["predicted"], average="macro") for name, each in tables.items()}
    assert found["reference"] == "good"
    assert found["tables"]["bad"]["macro_f1"]["value"] == pytest.approx(macro["bad"])
    worse = found["differences"]["bad"]["macro_f1"]
    assert worse["value"] == pytest.approx(macro["bad"] - macro["good"])
    assert worse["low"] < worse["value"] < worse["high"] < 0
    assert worse["p"] < 0.05


def test_the_same_table_differs_in_nothing() -> None:
    found = compared({"one": table(range(70), right=0.8), "same": table(range(70), right=0.8)}, **SETTINGS)  # type: ignore[arg-type]
    same = found["differences"]["same"]["accuracy"]
    assert (same["value"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)


def test_the_verb_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, right in (("full", 0.9), ("less", 0.6)):
        write_table(table(range(140), right=right), tmp_path / name / "predictions_val.csv")
    paths = ",".join(str(tmp_path / name / "predictions_val.csv") for name in ("full", "less"))
    run(composed("compare", CompareConfig, f"tables=[{paths}]", f"out={tmp_path / 'c.json'}", "resamples=200"))
    printed = capsys.readouterr().out
    assert "Differences from full" in printed
    written = json.loads((tmp_path / "c.json").read_text())
    assert f"{written['differences']['less']['accuracy']['value']:+.3f}" in printed


def test_other_images_are_refused(tmp_path: Path) -> None:
    for name, rows in (("full", range(70)), ("other", range(1, 71))):
        write_table(table(rows, right=0.9), tmp_path / name / "predictions_val.csv")
    paths = ",".join(str(tmp_path / name / "predictions_val.csv") for name in ("full", "other"))
    with pytest.raises(DataError, match="differ in image_id"):
        run(composed("compare", CompareConfig, f"tables=[{paths}]"))


@pytest.mark.parametrize("kind", ["one row", "one diagnosis"])
def test_what_cannot_be_computed_is_null(kind: str, tmp_path: Path) -> None:
    rows = table(range(1), right=1.0) if kind == "one row" else table(range(0, 70, 7), right=0.6)
    for name in ("a", "b"):
        write_table(rows, tmp_path / name / "predictions_val.csv")
    paths = ",".join(str(tmp_path / name / "predictions_val.csv") for name in ("a", "b"))
    run(composed("compare", CompareConfig, f"tables=[{paths}]", f"out={tmp_path / 'c.json'}", "resamples=100"))
    text = (tmp_path / "c.json").read_text()
    assert "NaN" not in text
    found = json.loads(text)
    own, difference = found["tables"]["a"]["recall_df"], found["differences"]["b"]["recall_df"]
    assert own["value"] is difference["value"] is difference["p"] is None
    assert "not computable" in own["note"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("nan", "a probability is no number from 0 to 1: row 1"), ("0.9", "the probabilities do not sum to 1: row 1")],
)
def test_faulty_probabilities_are_named(wrong: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions_val.csv"
    write_table(table(range(7), right=1.0), path)
    header, first, *others = path.read_text().splitlines()
    cells = first.split(",")
    path.write_text("\n".join([header, ",".join([*cells[:2], wrong, *cells[3:]]), *others]))
    with pytest.raises(DataError, match=said) as caught:
        run(composed("compare", CompareConfig, f"tables=[{path}]"))
    assert "predictions_val.csv" in str(caught.value)
