"""Figures of a predictions table: confusion matrix, reliability, sample sheet; and what all figures share.

A figure is returned, neither shown nor saved; `save` writes it. ROC and precision-recall are in `curves.py`.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skinlesion.files import replacing
from skinlesion.inference.predictions import predicted_targets, probabilities, targets
from skinlesion.metrics.calibration import calibration, expected_calibration_error
from skinlesion.metrics.classification import Floats, Integers, confusions, ratio
from skinlesion.taxonomy import CODES, DIAGNOSES

PAGE_WIDTH = 7.0  # inches between the margins of A4 and letter paper
DOTS_PER_INCH = 200

# Okabe & Ito, Color Universal Design (2008): told apart with every kind of colour vision. Grey stands in for their
# yellow, which is too faint for a line on white.
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
BLACK, GREY, PALE = "#000000", "#7F7F7F", "#EDEDED"


def canvas(*, height: float) -> Figure:
    """Return an empty figure of page width and `height` inches."""
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


def confusion_matrix(table: pd.DataFrame) -> Figure:
    """Draw how often each actual diagnosis (row) was predicted as each (column): count, share of the row."""
    counts = confusions(targets(table), predicted_targets(table))
    shares = ratio(counts, counts.sum(axis=1, keepdims=True))
    figure = canvas(height=5.0)
    axes = figure.add_subplot()
    colours = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _write_cells(axes, counts, shares=shares)
    names = [fill(f"{each.name} ({each.code})", 24) for each in DIAGNOSES]
    labels = [f"{name}\nn = {n}" for name, n in zip(names, counts.sum(axis=1), strict=True)]
    axes.set_yticks(range(len(CODES)), labels)
    axes.set_xticks(range(len(CODES)), CODES)
    axes.tick_params(length=0, labelsize=8)
    axes.set(xlabel="predicted diagnosis", ylabel="actual diagnosis")
    axes.set_title(f"Confusion matrix (n = {len(table)}): count and share of the row", fontsize=10)
    figure.colorbar(colours, ax=axes, label="share of the actual diagnosis", shrink=0.8)
    return figure


def reliability(table: pd.DataFrame, *, bins: int) -> Figure:
    """Draw accuracy against confidence in bins of equal width, above how many images are in each bin.

    The bars of a point are the 95 % interval of Wilson, J. Am. Stat. Assoc. 22:209-212 (1927),
    doi:10.1080/01621459.1927.10502953: a bin of few images says little.

    Args:
        table: A predictions table with known actual diagnoses.
        bins: How many bins divide the confidences 0..1.
    """
    frame = calibration(table, bins=bins)
    filled = frame[frame["images"] > 0]
    low, high = wilson(filled["accuracy"].to_numpy(), filled["images"].to_numpy())
    # by rounding, an accuracy of 1 can lie above its interval's end
    whiskers = np.maximum([filled["accuracy"] - low, high - filled["accuracy"]], 0)
    middles = (filled["low"] + filled["high"]) / 2
    figure = canvas(height=5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1, label="perfect calibration")
    above.bar(middles, filled["accuracy"], width=1 / bins, color=SKY, alpha=0.5, edgecolor="white", label="accuracy")
    label = "accuracy at mean confidence, 95 % interval"
    above.errorbar(
        filled["confidence"], filled["accuracy"], whiskers, fmt="o", color=BLUE, capsize=3, ms=4, label=label
    )
    above.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    error = expected_calibration_error(frame)
    above.set_title(f"Reliability (n = {len(table)}): expected calibration error {error:.3f}", fontsize=10)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    below.bar(middles, filled["images"], width=1 / bins, color=GREY, edgecolor="white")
    below.set(xlabel="confidence (probability of the predicted diagnosis)", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    plain(above, below)
    return figure


def sample_sheet(table: pd.DataFrame, image_of: Callable[[str], npt.NDArray[Any]]) -> Figure:
    """Show the most, the median and the least confident image of each actual diagnosis.

    Confidence is the probability of the predicted diagnosis, right or wrong. A diagnosis with one or two
    images shows each of them once; one without images has no row.

    Args:
        table: A predictions table with known actual diagnoses.
        image_of: Returns the (H, W, 3) RGB image of an image_id, uint8 or float in 0..1.
    """
    actual, confidence = targets(table), probabilities(table).max(axis=1)
    present = [k for k in range(len(CODES)) if (actual == k).any()]
    figure = canvas(height=0.5 + 1.3 * len(present))
    grid = figure.subplots(len(present), 3, squeeze=False)
    for row, k in zip(grid, present, strict=True):
        places = np.flatnonzero(actual == k)
        label = f"{fill(DIAGNOSES[k].name, 19)}\n({CODES[k]})\nn = {len(places)}"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for axes, place in zip(row, _extremes_and_median(places, confidence), strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if place is not None:
                _show(axes, table.iloc[place], image_of)
    for axes, heading in zip(grid[0], ("most confident", "median", "least confident"), strict=True):
        axes.annotate(
            heading, (0.5, 1), (0, 26), "axes fraction", "offset points", ha="center", fontsize=9, weight="bold"
        )
    return figure


def wilson(share: Floats, images: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % interval of a share of some images."""
    z = NormalDist().inv_cdf(0.975)
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return centre - half, centre + half


def _write_cells(axes: Axes, counts: Integers, *, shares: Floats) -> None:
    """Write count and share into each cell of a matrix; a row without images has no shares."""
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        percent = "<1%" if share < 0.005 else f"{share:.0%}"
        text = f"{count}\n{percent}" if count else "0"
        ink = "white" if share > 0.6 else BLACK if count else GREY
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)


def _extremes_and_median(places: Integers, confidence: npt.NDArray[Any]) -> list[int | None]:
    """Return the places of highest, median and lowest confidence; None instead of a place a second time."""
    order = places[np.argsort(-confidence[places], kind="stable")]
    picks = {1: [0, None, None], 2: [0, None, 1]}.get(len(order), [0, len(order) // 2, len(order) - 1])
    return [None if pick is None else int(order[pick]) for pick in picks]


def _show(axes: Axes, row: "pd.Series[Any]", image_of: Callable[[str], npt.NDArray[Any]]) -> None:
    """Draw one image with its id and what was predicted; wrong predictions stand out by sign and colour."""
    right = row["predicted"] == row["actual"]
    axes.imshow(image_of(row["image_id"]))
    text = f"{'✓' if right else '✗'} {row['predicted']} {row[row['predicted']]:.2f}"
    axes.set_title(f"{row['image_id']}\n{text}", fontsize=7, color=BLACK if right else VERMILLION, pad=2)
