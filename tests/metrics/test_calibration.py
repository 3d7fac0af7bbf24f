"""Calibration against hand arithmetic and torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as tm

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import expected_calibration_error, reliability_bins
from skinlesion.taxonomy import CODES


def test_bins_by_hand() -> None:
    rest = [0.0] * 5
    values = [[0.5, 0.5, *rest], [0.75, 0.25, *rest], [1, 0, *rest], [0.875, 0.125, *rest]]
    table = Predictions.build(list("abcd"), [""] * 4, probabilities=values, actual=["akiec", "bcc", "akiec", "akiec"])
    frame = reliability_bins(table, bins=4)
    assert frame["low"].tolist() == [0, 0.25, 0.5, 0.75]
    assert frame["high"].tolist() == [0.25, 0.5, 0.75, 1]
    assert frame["images"].tolist() == [0, 0, 1, 3]  # an edge belongs to the bin above it, 1 to the last
    np.testing.assert_allclose(frame["confidence"], [np.nan, np.nan, 0.5, 2.625 / 3])
    np.testing.assert_allclose(frame["accuracy"], [np.nan, np.nan, 1, 2 / 3])
    assert expected_calibration_error(frame) == pytest.approx((1 * 0.5 + 3 * (2.625 - 2) / 3) / 4)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("rows", [1, 300])
def test_the_error_is_that_of_torchmetrics(bins: int, rows: int) -> None:
    rng = np.random.default_rng(bins)
    names = [str(number) for number in range(rows)]
    values = rng.dirichlet([0.4] * 7, size=rows)
    actual = [CODES[k] for k in rng.integers(0, 7, rows)]
    table = Predictions.build(names, [""] * rows, probabilities=values, actual=actual)
    given = torch.from_numpy(table.probabilities), torch.from_numpy(table.targets)
    expected = tm.multiclass_calibration_error(*given, num_classes=7, n_bins=bins, norm="l1").item()
    frame = reliability_bins(table, bins=bins)
    assert expected_calibration_error(frame) == pytest.approx(expected, abs=1e-6)
    assert frame["images"].sum() == rows


def test_no_bins_are_refused() -> None:
    table = Predictions.build(["a"], [""], probabilities=np.eye(7)[:1], actual=["nv"])
    with pytest.raises(ValueError, match="at least 1"):
        reliability_bins(table, bins=0)
