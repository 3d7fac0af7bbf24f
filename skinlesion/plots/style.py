"""The style that all figures share: page size, colours, panels, rows of numbers with intervals, and saving.

Figures are returned, neither shown nor saved; `save` writes one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinlesion.files import replacing
from skinlesion.metrics.classification import Floats
from skinlesion.metrics.estimate import Estimate

PAGE_WIDTH = 7.0  # inches between the margins of A4 and letter paper
DOTS_PER_INCH = 200

# Okabe & Ito, Color Universal Design (2008): distinct for every kind of colour vision. Grey replaces their yellow,
# which is too faint for a line on white.
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
BLACK, GREY, PALE = "#000000", "#7F7F7F", "#EDEDED"

BOXES: Mapping[str, Any] = {
    "orientation": "horizontal",
    "widths": 0.6,
    "whis": (5, 95),
    "patch_artist": True,
    "boxprops": {"facecolor": SKY, "edgecolor": BLACK},
    "medianprops": {"color": VERMILLION, "linewidth": 2},
}
"""Horizontal box plots: quartiles, and whiskers from 5 % to 95 %."""


def canvas(*, height: float) -> Figure:
    """An empty figure of page width and `height` inches."""
    return Figure(figsize=(PAGE_WIDTH, height), layout="constrained")


def panel(*, height: float, title: str = "", **properties: Any) -> tuple[Figure, Axes]:
    """A figure of page width and `height` inches with one plain panel; `properties` are of its axes."""
    figure = canvas(height=height)
    axes = figure.add_subplot(**properties)
    axes.set_title(title, fontsize=10)
    plain(axes)
    return figure, axes


def plain(*panels: Axes) -> None:
    """Remove the frame at the top and right of each panel, draw a faint grid behind it and set the size of its text."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)


def bare(*panels: Axes) -> None:
    """Remove the frame and the ticks of each panel."""
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)


def label_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows 0, 1, … of a panel, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def legend(figure: Figure, axes: Axes, where: Literal["upper", "lower"], *, ncols: int) -> None:
    """Draw the legend of one panel outside all panels, at the upper or lower edge of the figure."""
    style: dict[str, Any] = {"loc": f"outside {where} center", "ncols": ncols, "fontsize": 8, "frameon": False}
    figure.legend(*axes.get_legend_handles_labels(), **style)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=DOTS_PER_INCH)


def points(estimates: Sequence[Estimate]) -> tuple[Floats, Floats]:
    """Values (S,) of estimates and the lengths of both whiskers (2, S); NaN where there is no number."""
    ends = [(each.value, each.low, each.high) for each in estimates]
    value, low, high = np.array(ends, dtype=np.float64).reshape(-1, 3).T
    return value, np.maximum([value - low, high - value], 0)


def wilson(bins: pd.DataFrame) -> Floats:
    """Whiskers (2, S) of accuracies: the 95 % interval of Wilson (1927), doi:10.1080/01621459.1927.10502953.

    Args:
        bins: Bins with `accuracy` and their number of `images`, at least 1.
    """
    z, share, images = NormalDist().inv_cdf(0.975), bins["accuracy"].to_numpy(), bins["images"].to_numpy()
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    # by rounding, an accuracy of 1 can lie above its interval's end
    return np.maximum([share - (centre - half), centre + half - share], 0)
