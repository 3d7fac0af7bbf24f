"""The figure of a training: phases, columns, and what is refused."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from plots.test_classification import assert_on_the_page, points_of

from skinlesion.errors import DataError
from skinlesion.plots.history import COLUMNS, LR, history


def random_history(lengths: dict[str, int]) -> pd.DataFrame:
    epochs = sum(lengths.values())
    numbers = np.random.default_rng(0).uniform(0.2, 0.9, (epochs, 4))
    frame = pd.DataFrame(numbers, columns=["train/loss", "val/loss", "val/accuracy", "val/macro_f1"])
    phases = [name for name, length in lengths.items() for _ in range(length)]
    return frame.assign(phase=phases, epoch=range(epochs), **{LR: np.geomspace(1e-3, 1e-6, epochs)})


@pytest.mark.parametrize("lengths", [{"head": 1}, {"head": 5, "top": 10, "all": 13}, {"a": 1, "b": 1}])
def test_a_history_keeps_within_the_page(lengths: dict[str, int]) -> None:
    assert_on_the_page(history(random_history(lengths)))


@pytest.mark.parametrize("lengths", [{"head": 5, "top": 10, "all": 13}, {"head": 1, "top stages": 1, "all": 40}])
def test_the_phases_of_a_history_are_parted_and_named(lengths: dict[str, int]) -> None:
    frame = random_history(lengths)
    figure = history(frame)
    figure.draw_without_rendering()
    first, second, _ = lengths.values()
    for axes in figure.axes:
        upright = {line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"}
        assert upright == {first - 0.5, first + second - 0.5}
    names = figure.axes[0].texts
    assert [text.get_text() for text in names] == list(lengths)
    for one, other in combinations([text.get_window_extent() for text in names], 2):
        assert not one.overlaps(other)


def test_the_lines_of_a_history_are_its_columns() -> None:
    frame = random_history({"head": 3, "all": 4})
    frame.loc[0, "val/macro_f1"] = np.nan
    frame.loc[4, "val/macro_f1"] = 0.987
    mixed = frame.sample(frac=1, random_state=6)
    loss, metric, rate = history(mixed).axes
    for axes, names in (
        (loss, ["train/loss", "val/loss"]),
        (metric, ["val/accuracy", "val/macro_f1"]),
        (rate, [LR]),
    ):
        for name in names:
            (line,) = [line for line in axes.get_lines() if line.get_label() == name]
            np.testing.assert_array_equal(line.get_ydata(), frame[name])
    (best,) = [line for line in metric.get_lines() if str(line.get_label()).startswith("best")]
    assert best.get_label() == "best val/macro_f1: 0.987 in epoch 4"
    assert points_of(best) == (4, 0.987)
    assert rate.get_yscale() == "log"


@pytest.mark.parametrize("rate", [0.0, np.nan])
def test_a_history_without_rates_or_metrics_can_be_drawn(rate: float) -> None:
    frame = random_history({"head": 3}).assign(**{LR: rate})
    frame["val/macro_f1"] = np.nan
    assert_on_the_page(history(frame))


def test_an_incomplete_history_is_refused() -> None:
    frame = random_history({"head": 2})
    for name in COLUMNS:
        with pytest.raises(DataError, match=rf"without the columns \['{name}'\]"):
            history(frame.drop(columns=name))
    with pytest.raises(DataError, match="0 epochs"):
        history(frame.iloc[:0])
