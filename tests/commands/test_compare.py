"""`skinlesion compare`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES, composed

from skinlesion.commands.compare import run
from skinlesion.config.inference import CompareConfig
from skinlesion.errors import ConfigError, DataError
from skinlesion.inference.predictions import Predictions


def table(rows: range, *, right: float, seed: int = 0) -> Predictions:
    """Predictions of which a share is right."""
    rng = np.random.default_rng(seed)
    actual = np.array([row % 7 for row in rows])
    said = np.where(rng.random(len(actual)) < right, actual, (actual + 1) % 7)
    probabilities = np.full((len(actual), 7), 0.05)
    probabilities[np.arange(len(actual)), said] = 0.7
    ids = [f"image{row:04d}" for row in rows]
    return Predictions.build(ids, ids, probabilities=probabilities, actual=[CODES[k] for k in actual])


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, right in (("full", 0.9), ("less", 0.6)):
        table(range(140), right=right).write(tmp_path / name / "predictions_val.csv")
    paths = ",".join(str(tmp_path / name / "predictions_val.csv") for name in ("full", "less"))
    run(composed("compare", CompareConfig, f"tables=[{paths}]", f"out={tmp_path / 'c.json'}", "resamples=200"))
    printed = capsys.readouterr().out
    assert "Differences from full" in printed
    written = json.loads((tmp_path / "c.json").read_text())
    assert f"{written['differences']['less']['accuracy']['value']:+.3f}" in printed


def test_other_images_are_refused(tmp_path: Path) -> None:
    for name, rows in (("full", range(70)), ("other", range(1, 71))):
        table(rows, right=0.9).write(tmp_path / name / "predictions_val.csv")
    paths = ",".join(str(tmp_path / name / "predictions_val.csv") for name in ("full", "other"))
    with pytest.raises(DataError, match="hold 70 and 70 images, 2 in one table only"):
        run(composed("compare", CompareConfig, f"tables=[{paths}]"))


def test_a_table_of_another_program_needs_neither_lesions_nor_diagnoses(tmp_path: Path) -> None:
    """As with those columns, in any order of rows and columns and any case."""
    for name, right in (("ours", 0.9), ("whole", 0.6)):
        table(range(140), right=right).write(tmp_path / f"{name}.csv")
    whole = pd.read_csv(tmp_path / "whole.csv").sample(frac=1, random_state=0)
    bare = whole[["image_id", *reversed(CODES)]].rename(columns={"image_id": "image", **{k: k.upper() for k in CODES}})
    bare.to_csv(tmp_path / "theirs.csv", index=False)
    found = {}
    for name in ("whole", "theirs"):
        words = f"tables=[{tmp_path / 'ours.csv'},{tmp_path / name}.csv]", f"out={tmp_path / 'c.json'}"
        run(composed("compare", CompareConfig, *words, "resamples=100"))
        found[name] = json.loads((tmp_path / "c.json").read_text())["differences"][f"{name}.csv"]
    assert found["theirs"] == found["whole"]
    assert found["theirs"]["accuracy"]["value"] < 0


def test_the_files_of_a_pattern_are_compared_where_they_hold_the_same_images(tmp_path: Path) -> None:
    for name, rows in (("a", range(70)), ("b[1]", range(70)), ("folds/0", range(35)), ("folds/1", range(35, 70))):
        table(rows, right=0.9).write(tmp_path / name / "predictions_val.csv")
    patterns = f"tables=['{tmp_path}/*/predictions_val.csv','{tmp_path}/folds/*/predictions_val.csv']"
    run(composed("compare", CompareConfig, patterns, f"out={tmp_path / 'c.json'}", "resamples=100"))
    found = json.loads((tmp_path / "c.json").read_text())
    assert len(found["tables"]) == 3
    with pytest.raises(DataError, match=r"a: a folder; expected predictions tables, such as .*a/predictions_val\.csv"):
        run(composed("compare", CompareConfig, f"tables=[{tmp_path / 'a'}]"))


def test_recipes_count_their_training_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, right in (("full", 0.9), ("less", 0.6)):
        for seed in range(3):
            folder = tmp_path / f"{name}-{seed}"
            table(range(140), right=right, seed=seed).write(folder / "predictions_val.csv")
            (folder / "config.yaml").write_text(f"seed: {seed}\n")
    recipes = f"recipes=['{tmp_path}/full-*/predictions_val.csv','{tmp_path}/less-*/predictions_val.csv']"
    words = (recipes, f"out={tmp_path / 'c.json'}", "resamples=200")
    run(composed("compare", CompareConfig, *words))
    assert "full-*, 3 seeds" in capsys.readouterr().out
    written = json.loads((tmp_path / "c.json").read_text())
    difference = written["differences"]["less-*"]["accuracy"]
    assert difference["method"] == "seeds"
    assert difference["high"] < 0
    assert difference["p"] < 0.05
    (tmp_path / "less-2" / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(DataError, match=r"less-0/\S+ and \S+less-2/\S+ have the same training seed 0"):
        run(composed("compare", CompareConfig, *words))
    (tmp_path / "less-2" / "predictions_val.csv").unlink()
    run(composed("compare", CompareConfig, *words))
    assert json.loads((tmp_path / "c.json").read_text())["differences"]["less-*"]["accuracy"]["low"] is None
    with pytest.raises(ConfigError, match=r"tables=\[\]: expected predictions tables, or recipes"):
        composed("compare", CompareConfig)


@pytest.mark.parametrize("kind", ["one row", "one diagnosis"])
def test_what_cannot_be_computed_is_null(kind: str, tmp_path: Path) -> None:
    rows = table(range(1), right=1.0) if kind == "one row" else table(range(0, 70, 7), right=0.6)
    for name in ("a", "b"):
        rows.write(tmp_path / name / "predictions_val.csv")
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
    table(range(7), right=1.0).write(path)
    header, first, *others = path.read_text().splitlines()
    cells = first.split(",")
    path.write_text("\n".join([header, ",".join([*cells[:2], wrong, *cells[3:]]), *others]))
    with pytest.raises(DataError, match=said) as caught:
        run(composed("compare", CompareConfig, f"tables=[{path}]"))
    assert "predictions_val.csv" in str(caught.value)
