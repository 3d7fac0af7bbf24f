"""Precision-recall and ROC curves of a predictions table: each diagnosis against the rest, and their mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from skinlesion.inference.predictions import probabilities, targets
from skinlesion.metrics.classification import Floats, report
from skinlesion.plots.predictions import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, canvas, plain
from skinlesion.taxonomy import CODES

Line = tuple[Floats, Floats]  # x and y, equally long, x not falling

_COLOURS = dict(zip(CODES, (ORANGE, SKY, GREEN, GREY, VERMILLION, BLUE, PURPLE), strict=True))
_DASHES = dict(zip(CODES, ("-", "--", "-", "--", "-", "--", "-"), strict=True))  # a second way to tell them apart
_POINTS = 1001  # of the mean ROC curve


def precision_recall(table: pd.DataFrame) -> Figure:
    """Draw precision against recall for each diagnosis against the rest, and their mean over the diagnoses.

    The area under each line is its average precision: steps without interpolation, as precision is not linear
    in recall (Davis & Goadrich, ICML 2006, doi:10.1145/1143844.1143874). The dotted line is mean chance.
    """
    actual, values = targets(table), probabilities(table)
    curves: dict[str, Line] = {}
    for k, code in enumerate(CODES):
        if (actual == k).any():
            precision, recall, _ = precision_recall_curve(actual == k, values[:, k])
            curves[code] = recall[::-1], precision[::-1]
    lines = {code: _steps([curve]) for code, curve in curves.items()}
    figure, axes = _square("recall", "precision", title="Precision-recall curves, each diagnosis against the rest")
    axes.axhline(1 / len(lines), color=BLACK, linewidth=0.8, linestyle=":")  # the shares of all have the sum 1
    lines["macro"] = _steps(list(curves.values()))
    _draw(axes, lines, report(table), area="ap", drawstyle="steps-pre")
    return figure


def roc(table: pd.DataFrame) -> Figure:
    """Draw the receiver operating characteristic of each diagnosis against the rest, and their mean.

    The mean is over the diagnoses at equal false-positive rate. The dotted line is chance.
    """
    actual, values = targets(table), probabilities(table)
    lines: dict[str, Line] = {}
    for k, code in enumerate(CODES):
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
    _draw(axes, lines, report(table), area="auroc", drawstyle="default")
    return figure


def _steps(curves: Sequence[Line]) -> Line:
    """Return the mean precision of curves at each recall that one of them reaches, as steps that end there.

    The precision of a curve at a recall is that of the strictest threshold that reaches this recall.
    """
    recalls = np.unique(np.concatenate([recall for recall, _ in curves]))[1:]  # the first is 0: without images
    each = [precision[np.searchsorted(recall, recalls, side="left")] for recall, precision in curves]
    mean = np.mean(each, axis=0)
    return np.append(0, recalls), np.append(mean[0], mean)


def _square(xlabel: str, ylabel: str, *, title: str) -> tuple[Figure, Axes]:
    figure = canvas(height=5.1)
    axes = figure.add_subplot(aspect="equal", xlabel=xlabel, ylabel=ylabel, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_title(title, fontsize=10)
    plain(axes)
    return figure, axes


def _draw(axes: Axes, lines: Mapping[str, Line], judged: Mapping[str, Any], *, area: str, drawstyle: str) -> None:
    """Draw the line of each diagnosis and of the mean, with its area in the legend.

    Args:
        axes: Where to draw.
        lines: By code, and "macro". A diagnosis without a line stands in the legend alone.
        judged: The classification report of the same table.
        area: The name of the area in the report, "auroc" or "ap".
        drawstyle: Of matplotlib, how points are joined.
    """
    for code in CODES:
        own = judged["per_diagnosis"][code]
        value = "undefined" if own[area] is None else f"{own[area]:.3f}"
        label = f"{code}: {value} (n = {own['support']})"
        style: dict[str, Any] = {"color": _COLOURS[code], "linestyle": _DASHES[code], "linewidth": 1.5}
        axes.plot(*lines.get(code, ([], [])), drawstyle=drawstyle, label=label, **style)
    if "macro" in lines:
        label = f"macro: {judged[f'macro_{area}']:.3f}"
        axes.plot(*lines["macro"], drawstyle=drawstyle, label=label, color=BLACK, linewidth=3, zorder=1.5)
    title = {"auroc": "area under the curve", "ap": "average precision"}[area]
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, title_fontsize=8, frameon=False)
