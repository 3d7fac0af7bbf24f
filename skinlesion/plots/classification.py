"""Figures of predictions: confusion matrix, precision-recall and ROC curves, reliability, sample sheet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import expected_calibration_error, reliability_bins
from skinlesion.metrics.classification import ClassificationReport, Floats, confusion_of, ratio, report
from skinlesion.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    bare,
    canvas,
    panel,
    plain,
    wilson,
)

Line = tuple[Floats, Floats]  # x and y, equally long, x not falling

_COLOURS = (ORANGE, SKY, GREEN, GREY, VERMILLION, BLUE, PURPLE)  # of the diagnoses, in class order
_POINTS = 1001  # of the mean ROC curve


def confusion_matrix(predictions: Predictions) -> Figure:
    """Draw how often each actual diagnosis (row) was predicted as each (column): count, share of the row."""
    counts, taxonomy = confusion_of(predictions), predictions.taxonomy
    shares = ratio(counts, counts.sum(axis=1, keepdims=True))
    figure = canvas(height=5.0)
    axes = figure.add_subplot()
    colours = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]  # NaN in a row without images
        text = f"{count}\n{'<1%' if share < 0.005 else f'{share:.0%}'}" if count else "0"
        ink = "white" if share > 0.6 else BLACK if count else GREY
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    names = [fill(f"{each.name} ({each.code})", 24) for each in taxonomy.diagnoses]
    labels = [f"{name}\nn = {n}" for name, n in zip(names, counts.sum(axis=1), strict=True)]
    axes.set_yticks(range(len(taxonomy)), labels)
    axes.set_xticks(range(len(taxonomy)), taxonomy.codes)
    axes.tick_params(length=0, labelsize=8)
    axes.set(xlabel="predicted diagnosis", ylabel="actual diagnosis")
    axes.set_title(f"Confusion matrix (n = {len(predictions)}): count and share of the row", fontsize=10)
    bar = figure.colorbar(colours, ax=axes, label="share of the actual diagnosis", shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    return figure


def precision_recall(predictions: Predictions) -> Figure:
    """Draw precision against recall for each diagnosis against the rest, and their mean over the diagnoses.

    The area under each line is its average precision: steps without interpolation, as precision is not linear
    in recall (Davis & Goadrich, ICML 2006, doi:10.1145/1143844.1143874). The dotted line is mean chance.
    """
    actual, values = predictions.targets, predictions.probabilities
    curves: dict[str, Line] = {}
    for k, code in enumerate(predictions.taxonomy.codes):
        if (actual == k).any():
            precision, recall, _ = precision_recall_curve(actual == k, values[:, k])
            curves[code] = recall[::-1], precision[::-1]
    lines = {code: _steps([curve]) for code, curve in curves.items()}
    figure, axes = _square("recall", "precision", title="Precision-recall curves, each diagnosis against the rest")
    axes.axhline(1 / len(lines), color=BLACK, linewidth=0.8, linestyle=":")  # the shares of all have the sum 1
    lines["macro"] = _steps(list(curves.values()))
    _draw(axes, lines, report(predictions), area="ap", drawstyle="steps-pre")
    return figure


def roc(predictions: Predictions) -> Figure:
    """Draw the receiver operating characteristic of each diagnosis against the rest, and their mean.

    The mean is over the diagnoses at equal false-positive rate. The dotted line is chance.
    """
    actual, values = predictions.targets, predictions.probabilities
    lines: dict[str, Line] = {}
    for k, code in enumerate(predictions.taxonomy.codes):
        if 0 < (actual == k).sum() < len(actual):
            lines[code] = roc_curve(actual == k, values[:, k])[:2]
    if lines:
        rates = np.linspace(0, 1, _POINTS)
        means = np.mean([np.interp(rates, *line) for line in lines.values()], axis=0)
        lines["macro"] = np.append(0, rates), np.append(0, means)
    figure, axes = _square(
        "false-positive rate (1 - specificity)",
        "true-positive rate (sensitivity)",
        title="ROC curves, each diagnosis against the rest",
    )
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.8, linestyle=":")
    _draw(axes, lines, report(predictions), area="auroc", drawstyle="default")
    return figure


def reliability(predictions: Predictions, *, bins: int) -> Figure:
    """Draw accuracy against confidence in bins of equal width, above how many images are in each bin.

    The bars of a point are the 95 % interval of Wilson, J. Am. Stat. Assoc. 22:209-212 (1927),
    doi:10.1080/01621459.1927.10502953: a bin of few images says little.

    Args:
        predictions: With known actual diagnoses.
        bins: Number of bins of the confidences 0..1.
    """
    filled = reliability_bins(predictions, bins=bins).query("images > 0")
    middles = (filled["low"] + filled["high"]) / 2
    figure = canvas(height=5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1, label="perfect calibration")
    above.bar(middles, filled["accuracy"], width=1 / bins, color=SKY, alpha=0.5, edgecolor="white", label="accuracy")
    style: dict[str, Any] = {"fmt": "o", "color": BLUE, "capsize": 3, "ms": 4}
    label = "accuracy at mean confidence, 95 % interval"
    above.errorbar(filled["confidence"], filled["accuracy"], wilson(filled), label=label, **style)
    above.set(ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
    error = expected_calibration_error(filled)
    above.set_title(f"Reliability (n = {len(predictions)}): expected calibration error {error:.3f}", fontsize=10)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    below.bar(middles, filled["images"], width=1 / bins, color=GREY, edgecolor="white")
    below.set(xlabel="confidence (probability of the predicted diagnosis)", ylabel="images")
    below.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    plain(above, below)
    return figure


def sample_sheet(predictions: Predictions, image_of: Callable[[str], npt.NDArray[Any]]) -> Figure:
    """Show the most, the median and the least confident image of each actual diagnosis, a column for each.

    Confidence is the probability of the predicted diagnosis, right or wrong. A diagnosis with one or two
    images shows each of them once; one without images has no column.

    Args:
        predictions: With known actual diagnoses.
        image_of: Returns the (H, W, 3) RGB image of an image_id, uint8 or float in 0..1.
    """
    actual, confidence = predictions.targets, predictions.probabilities.max(axis=1)
    diagnoses = predictions.taxonomy.diagnoses
    present = [k for k in range(len(diagnoses)) if (actual == k).any()]
    figure = canvas(height=4.3)
    grid = figure.subplots(3, len(present), squeeze=False)
    for column, k in zip(grid.T, present, strict=True):
        places = np.flatnonzero(actual == k)
        label = f"{fill(diagnoses[k].name, 14, break_long_words=False)}\n({diagnoses[k].code}), n = {len(places)}"
        column[0].annotate(label, (0.5, 1), (0, 22), "axes fraction", "offset points", ha="center", fontsize=7)
        order = places[np.argsort(-confidence[places], kind="stable")]
        chosen = {1: [0, None, None], 2: [0, None, 1]}.get(len(order), [0, len(order) // 2, len(order) - 1])
        bare(*column)
        for axes, rank in zip(column, chosen, strict=True):
            if rank is not None:
                _show(axes, predictions, int(order[rank]), image_of)
    for axes, heading in zip(grid[:, 0], ("most confident", "median", "least confident"), strict=True):
        axes.set_ylabel(heading, fontsize=8)
    return figure


def _steps(curves: Sequence[Line]) -> Line:
    """The mean precision of curves at each recall that one of them reaches, as steps that end there.

    The precision of a curve at a recall is that of the strictest threshold that reaches this recall.
    """
    recalls = np.unique(np.concatenate([recall for recall, _ in curves]))[1:]  # the first is 0: without images
    each = [precision[np.searchsorted(recall, recalls, side="left")] for recall, precision in curves]
    mean = np.mean(each, axis=0)
    return np.append(0, recalls), np.append(mean[0], mean)


def _square(xlabel: str, ylabel: str, *, title: str) -> tuple[Figure, Axes]:
    limits: dict[str, Any] = {"xlim": (-0.01, 1.01), "ylim": (-0.01, 1.01), "aspect": "equal"}
    return panel(height=5.1, title=title, xlabel=xlabel, ylabel=ylabel, **limits)


def _draw(axes: Axes, lines: Mapping[str, Line], measured: ClassificationReport, *, area: str, drawstyle: str) -> None:
    """Draw the line of each diagnosis and "macro", with its `area`, "auroc" or "ap", in the legend."""
    styles = zip(measured.per_diagnosis.items(), cycle(_COLOURS), cycle(("-", "--")))  # dashes distinguish them too
    for (code, own), colour, dashes in styles:
        value = asdict(own)[area]
        label = f"{code}: {'undefined' if value is None else f'{value:.3f}'} (n = {own.support})"
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.5}
        axes.plot(*lines.get(code, ([], [])), drawstyle=drawstyle, label=label, **style)  # maybe in the legend alone
    if "macro" in lines:
        label = f"macro: {asdict(measured)[f'macro_{area}']:.3f}"
        axes.plot(*lines["macro"], drawstyle=drawstyle, label=label, color=BLACK, linewidth=3, zorder=1.5)
    title = {"auroc": "area under the curve", "ap": "average precision"}[area]
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, title_fontsize=8, frameon=False)


def _show(axes: Axes, predictions: Predictions, place: int, image_of: Callable[[str], npt.NDArray[Any]]) -> None:
    """Draw one image with its id and predicted diagnosis; wrong predictions stand out by sign and colour."""
    image_id, predicted = predictions.image_id[place], predictions.predicted[place]
    right = predicted == predictions.actual[place]
    axes.imshow(image_of(image_id))
    text = f"{'✓' if right else '✗'} {predicted} {predictions.probabilities[place].max():.2f}"
    axes.set_title(f"{image_id}\n{text}", fontsize=6, color=BLACK if right else VERMILLION, pad=2)
