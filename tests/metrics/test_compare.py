"""Tables against the first of them: names, pooling, and differences that agree with the tables' own numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CODES
from sklearn.metrics import f1_score

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.compare import compare_tables, ensemble_metrics, names_of, read_pooled
from skinlesion.metrics.estimate import BootstrapConfig

FAST = BootstrapConfig(200, 1, 0.95, "percentile")


def table(rows: range, *, right: float, seed: int = 0) -> Predictions:
    """Predictions of which a share is right."""
    rng = np.random.default_rng(seed)
    actual = np.array([row % 7 for row in rows])
    said = np.where(rng.random(len(actual)) < right, actual, (actual + 1) % 7)
    probabilities = np.full((len(actual), 7), 0.05)
    probabilities[np.arange(len(actual)), said] = 0.7
    ids = [f"image{row:04d}" for row in rows]
    return Predictions.build(ids, ids, probabilities=probabilities, actual=[CODES[k] for k in actual])


def test_a_table_is_named_by_what_sets_it_apart() -> None:
    assert names_of(["runs/full/predictions_val.csv", "runs/no_gate/predictions_val.csv"]) == ["full", "no_gate"]
    assert names_of(["a/x/val.csv", "a/x/test.csv"]) == ["val.csv", "test.csv"]
    assert names_of(["runs/*/one/t.csv", "runs/*/two/t.csv"]) == ["one", "two"]
    assert names_of(["runs/full/predictions_val.csv"]) == ["full"]


def test_a_pattern_pools_its_files(tmp_path: Path) -> None:
    whole = table(range(60), right=0.7)
    for fold in range(3):
        whole.select(np.arange(fold * 20, fold * 20 + 20)).write(tmp_path / f"fold{fold}" / "predictions_test.csv")
    pooled = read_pooled(str(tmp_path / "*" / "predictions_test.csv"))
    pd.testing.assert_frame_equal(pooled.to_frame(), whole.to_frame())
    whole.select(np.arange(5)).write(tmp_path / "fold3" / "predictions_test.csv")
    with pytest.raises(DataError, match="5 images in two"):
        read_pooled(str(tmp_path / "*" / "predictions_test.csv"))
    with pytest.raises(DataError, match=r"nothing\.csv"):
        read_pooled(str(tmp_path / "nothing.csv"))


def test_differences_are_those_of_the_tables() -> None:
    tables = {"good": table(range(300), right=0.9), "bad": table(range(300), right=0.5, seed=1)}
    found = compare_tables(tables, FAST, bins=10)
    macro = {name: f1_score(each.actual, each.predicted, average="macro") for name, each in tables.items()}
    assert found.reference == "good"
    assert found.tables["bad"]["macro_f1"].value == pytest.approx(macro["bad"])
    worse = found.differences["bad"]["macro_f1"]
    assert worse.value == pytest.approx(macro["bad"] - macro["good"])
    assert worse.low < worse.value < worse.high < 0
    assert worse.p < 0.05


def test_the_same_table_differs_in_nothing() -> None:
    found = compare_tables({"one": table(range(70), right=0.8), "same": table(range(70), right=0.8)}, FAST, bins=10)
    same = found.differences["same"]["accuracy"]
    assert (same.value, same.low, same.high, same.p) == (0, None, None, 1)


def test_an_ensemble_of_copies_gains_nothing() -> None:
    good = table(range(300), right=0.9)
    bad = good.with_probabilities(np.full((300, 7), 1 / 7))
    members = {name: {"val": each, "test": each} for name, each in (("bad", bad), ("good", good))}
    vote = {part: Predictions.soft_vote([good, good]) for part in ("val", "test")}
    found = ensemble_metrics(vote, vote, members, FAST, chosen=["good"], bins=10)
    assert found.best_member == "good"
    assert found.gains["test"]["accuracy"].value == 0
    assert found.calibrated == found.vote == found.members["good"]
    assert list(found.to_dict())[:5] == ["chosen", "level", "interval", "val", "test"]
    assert "members" not in ensemble_metrics(vote, vote, {}, FAST, chosen=["good"], bins=10).to_dict()
