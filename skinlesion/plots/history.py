"""The figure of a training: losses, validation metrics and learning rate over the epochs of all phases."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skinlesion.errors import DataError
from skinlesion.plots.style import BLACK, BLUE, GREY, ORANGE, PALE, SKY, VERMILLION, canvas, plain

LR = "lr-AdamW/head"
COLUMNS = ("phase", "epoch", "train/loss", "val/loss", "val/accuracy", "val/macro_f1", LR)


def history(frame: pd.DataFrame) -> Figure:
    """Draw losses, validation metrics and learning rate over the epochs, every other phase shaded.

    Args:
        frame: One row for each epoch, with the columns `COLUMNS`: name of the phase, epoch (counted over all phases),
            losses, metrics in 0..1, learning rate of the head. NaN leaves a gap.

    Raises:
        DataError: A column is missing or there is no row.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing or frame.empty:
        raise DataError(f"A history of {len(frame)} epochs, without the columns {missing}; expected {list(COLUMNS)}.")
    frame = frame.sort_values("epoch", ignore_index=True)
    figure = canvas(height=7.0)
    loss, metric, rate = panels = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 2])
    plain(*panels)
    _mark_phases(panels, frame)
    _plot(loss, frame, {"train/loss": (ORANGE, "o"), "val/loss": (BLUE, "s")})
    _plot(metric, frame, {"val/accuracy": (SKY, "o"), "val/macro_f1": (VERMILLION, "s")})
    _plot(rate, frame, {LR: (BLACK, "o")})
    loss.set_ylabel("loss")
    metric.set(ylabel="validation metric", ylim=(0, 1))
    rate.set(ylabel="learning rate\nof the head", xlabel="epoch")
    rate.set_yscale("log" if (frame[LR] > 0).any() else "linear")  # a log scale needs one number above 0
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if frame["val/macro_f1"].notna().any():
        best = frame.iloc[int(frame["val/macro_f1"].argmax())]
        label = f"best val/macro_f1: {best['val/macro_f1']:.3f} in epoch {int(best['epoch'])}"
        ring: dict[str, Any] = {"marker": "o", "ms": 10, "mfc": "none", "mec": BLACK, "linestyle": "none"}
        metric.plot(best["epoch"], best["val/macro_f1"], label=label, **ring)
    for axes in (loss, metric):
        axes.legend(loc="best", fontsize=8)
    return figure


def _plot(axes: Axes, frame: pd.DataFrame, styles: Mapping[str, tuple[str, str]]) -> None:
    """Draw columns of the frame over the epochs, each in a colour and with a marker."""
    for name, (colour, marker) in styles.items():
        axes.plot(frame["epoch"], frame[name], color=colour, marker=marker, markersize=3, linewidth=1.5, label=name)


def _mark_phases(panels: Sequence[Axes], frame: pd.DataFrame) -> None:
    """Shade every other phase and separate the phases by lines; their names are above the first panel."""
    number = (frame["phase"] != frame["phase"].shift()).cumsum()
    crowded = number.value_counts().min() < 0.12 * len(frame)  # too narrow for its name between its neighbours
    for place, (_, phase) in enumerate(frame.groupby(number)):
        start, end = phase["epoch"].min() - 0.5, phase["epoch"].max() + 0.5
        for axes in panels:
            axes.axvspan(start, end, color=PALE if place % 2 else "white", zorder=0)
            if place > 0:
                axes.axvline(start, color=GREY, linewidth=0.8, linestyle="--")
        height = 1.08 if crowded and place % 2 else 1.02
        across = panels[0].get_xaxis_transform()
        panels[0].text((start + end) / 2, height, phase["phase"].iloc[0], transform=across, ha="center", fontsize=8)
