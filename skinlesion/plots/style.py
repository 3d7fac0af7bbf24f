"""The style that all figures share: page size, colours, plain axes, rows of numbers with intervals, and saving.

Figures are returned, neither shown nor saved; `save` writes one.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinlesion.files import replacing
from skinlesion.metrics.classification import Floats
from skinlesion.metrics.estimate import Estimate

PAGE_WIDTH = 7.0  # inches between the margins of A4 and letter paper
DOTS_PER_INCH = 200

# Okabe & Ito, Color Universal Design (2008): told apart with every kind of colour vision. Grey stands in for their
# yellow, which is too faint for a line on white.
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
BLACK, GREY, PALE = "#000000", "#7F7F7F", "#EDEDED"


def canvas(*, height: float) -> Figure:
    """An empty figure of page width and `height` inches."""
    return Figure(figsize=(PAGE_WIDTH, height), layout="constrained")


def plain(*panels: Axes) -> None:
    """Leave out the frame at the top and right of each panel, and draw a faint grid behind it."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=PALE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png", dpi=DOTS_PER_INCH)


def intervals(axes: Axes, labels: Sequence[str], numbers: Sequence[Estimate]) -> None:
    """Draw a row for each number, first on top: its value and interval; nothing where it cannot be computed.

    Args:
        axes: Where to draw.
        labels: Labels of the rows.
        numbers: One a row.
    """
    for place, number in enumerate(numbers):
        if number.value is None:
            axes.text(0.02, place, "not computable", transform=axes.get_yaxis_transform(), fontsize=7, va="center")
            continue
        if number.low is not None and number.high is not None:
            axes.plot([number.low, number.high], [place, place], color=GREY, linewidth=2, solid_capstyle="round")
        axes.plot(number.value, place, "o", color=BLUE, ms=5)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    plain(axes)
    axes.grid(visible=False, axis="y")
    axes.hlines(range(len(labels)), *axes.get_xlim(), color=PALE, linewidth=0.6, zorder=0)


def wilson(share: Floats, images: Floats) -> tuple[Floats, Floats]:
    """The ends of the 95 % interval of a share of some images: Wilson, J. Am. Stat. Assoc. 22:209-212 (1927)."""
    z = NormalDist().inv_cdf(0.975)
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return centre - half, centre + half
