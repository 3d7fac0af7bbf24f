"""Operating points over folds: each part at its own ensemble's thresholds, all flags judged together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import composed

from skinlesion.commands.compare import run
from skinlesion.config.evaluate import CompareConfig
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.calibration import calibrated
from skinlesion.inference.pooled_points import pooled_points
from skinlesion.inference.predictions import build_table, probabilities, write_table
from skinlesion.taxonomy import CODES

SETTINGS: dict[str, Any] = {"resamples": 100, "seed": 1, "level": 0.95, "method": "percentile"}
MEL = CODES.index("mel")


def write_fold(folder: Path, rows: range, *, threshold: float | None, temperature: float = 1.0) -> pd.DataFrame:
    """A part's predictions and the ensemble.json beside them."""
    rng = np.random.default_rng(rows.start)
    ids = [f"image{row:03d}" for row in rows]
    table = build_table(
        ids, ids, probabilities=rng.dirichlet(np.ones(7), len(ids)), actual=[CODES[row % 7] for row in rows]
    )
    write_table(table, folder / "predictions_test.csv")
    point = {"target": "mel", "sensitivity": 0.8, "images": 5, "threshold": threshold, "reached": 0.8}
    about = {"calibration": {"method": "temperature", "temperature": temperature}, "operating_points": [point]}
    (folder / "ensemble.json").write_text(json.dumps(about))
    return table


def test_each_part_is_flagged_at_its_own_thresholds_after_its_own_calibration(tmp_path: Path) -> None:
    settings = {"a": (range(40), 0.1, 2.0), "b": (range(40, 100), 0.3, 0.5)}
    counts = np.zeros(4, dtype=int)
    for name, (rows, threshold, temperature) in settings.items():
        table = write_fold(tmp_path / name, rows, threshold=threshold, temperature=temperature)
        raised = (
            calibrated(probabilities(table), {"method": "temperature", "temperature": temperature})[:, MEL] >= threshold
        )
        own = (table["actual"] == "mel").to_numpy()
        counts += [(own & raised).sum(), (~own & raised).sum(), (own & ~raised).sum(), (~own & ~raised).sum()]
    (point,) = pooled_points([tmp_path / name / "predictions_test.csv" for name in settings], **SETTINGS)
    assert list(point["counts"].values()) == counts.tolist()
    assert point["thresholds"] == [0.1, 0.3]
    reached = point["numbers"]["sensitivity"]
    assert reached["value"] == pytest.approx(counts[0] / (counts[0] + counts[2]))
    assert reached["low"] <= reached["value"] <= reached["high"]


def test_the_verb_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert pooled_points([tmp_path / "predictions_val.csv"], **SETTINGS) == []
    write_fold(tmp_path, range(35), threshold=0.1)
    (tmp_path / "ensemble.json").write_text("{}")
    assert pooled_points([tmp_path / "predictions_test.csv"], **SETTINGS) == []
    (tmp_path / "ensemble.json").unlink()
    assert pooled_points([tmp_path / "predictions_test.csv"], **SETTINGS) == []


def test_a_part_without_a_threshold_leaves_the_point_out(tmp_path: Path) -> None:
    for fold, threshold in enumerate((0.1, None)):
        write_fold(tmp_path / str(fold), range(fold * 35, fold * 35 + 35), threshold=threshold)
    (point,) = pooled_points([tmp_path / str(fold) / "predictions_test.csv" for fold in (0, 1)], **SETTINGS)
    assert (point["counts"], point["numbers"]) == (None, {})


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[]", CheckpointError, "not a readable ensemble.json"),
        ("{", CheckpointError, "not a readable ensemble.json"),
        ('{"operating_points": [{"target": "mel", "sensitivity": 0.9}]}', DataError, "other than those of"),
    ],
)
def test_ensembles_that_do_not_go_together_are_refused(
    text: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    for fold in (0, 1):
        write_fold(tmp_path / str(fold), range(fold * 35, fold * 35 + 35), threshold=0.1)
    (tmp_path / "1" / "ensemble.json").write_text(text)
    with pytest.raises(error, match=said) as caught:
        pooled_points([tmp_path / str(fold) / "predictions_test.csv" for fold in (0, 1)], **SETTINGS)
    assert str(tmp_path / "1" / "ensemble.json") in str(caught.value)
