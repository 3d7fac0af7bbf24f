"""Operating points over folds: each part at its own ensemble's thresholds, all flags judged together."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import composed

from skinlesion.commands.compare import run
from skinlesion.config.inference import CompareConfig
from skinlesion.errors import CheckpointError, DataError
from skinlesion.inference.calibration import calibrated
from skinlesion.inference.posthoc_eval import pooled_points
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.estimate import BootstrapConfig
from skinlesion.taxonomy import CODES

FAST = BootstrapConfig(100, 1, 0.95, "percentile")
MEL = CODES.index("mel")
POINT = {"target": "mel", "sensitivity": 0.8}


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
        pooled_points([tmp_path / str(fold) / "predictions_test.csv" for fold in (0, 1)], FAST)
    assert str(tmp_path / "1" / "ensemble.json") in str(caught.value)
