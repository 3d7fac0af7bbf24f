"""Figures of a report: calibration, reject option, net benefit, prediction sets, members and groups."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import expected_calibration_error, reliability_bins
from skinlesion.metrics.classification import HEADLINE_NAMES
from skinlesion.metrics.decision import SetCoverage
from skinlesion.metrics.estimate import Estimate, Estimates
from skinlesion.metrics.summary import Subgroups
from skinlesion.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    SKY,
    VERMILLION,
    canvas,
    label_rows,
    legend,
    panel,
    plain,
    wilson,
)

_SCORES = {"confidence": (BLUE, "-"), "entropy": (ORANGE, "--"), "disagreement": (GREEN, "-.")}
FACTS = {"dataset": "image source", "dx_type": "confirmation", "skin_tone": "lightness of the skin"}
"""Names of facts that are called otherwise in the table."""


def before_and_after(before: Predictions, after: Predictions, *, bins: int) -> Figure:
    """Draw accuracy against confidence in bins of equal mass, before and after calibration, side by side.

    The bars are 95 % intervals of Wilson (1927), doi:10.1080/01621459.1927.10502953.

    Args:
        before: Uncalibrated predictions with known actual diagnoses.
        after: The same images, calibrated.
        bins: Number of bins of the confidences.
    """
    figure = canvas(height=4.0)
    panels = figure.subplots(1, 2, sharey=True)
    versions = (("before calibration", before, ORANGE), ("after calibration", after, BLUE))
    for axes, (name, predictions, colour) in zip(panels, versions, strict=True):
        frame = reliability_bins(predictions, bins=bins, edges="mass").query("images > 0")
        axes.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1)
        axes.errorbar(
            frame["confidence"], frame["accuracy"], wilson(frame), fmt="o-", color=colour, capsize=3, ms=4, linewidth=1
        )
        axes.set_title(f"{name}: error {expected_calibration_error(frame):.3f}", fontsize=10)
        axes.set(xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    panels[0].set_ylabel("accuracy")
    plain(*panels)
    return figure


def risk_against_coverage(curves: Mapping[str, pd.DataFrame], areas: Estimates) -> Figure:
    """Draw the error rate of the most confident images against the share of images kept.

    Args:
        curves: By confidence score, as from `selective.risk_coverage`.
        areas: By confidence score, as from `selective.aurc`.
    """
    figure, axes = panel(height=3.8, xlabel="coverage: share of images kept", ylabel="error rate of the images kept")
    for name, curve in curves.items():
        colour, dashes = _SCORES[name]
        label = f"{name}: area {areas[name].value:.3f}"
        x, y = np.append(0, curve["coverage"]), np.append(curve["risk"].iloc[0], curve["risk"])
        axes.step(x, y, where="pre", color=colour, linestyle=dashes, label=label, linewidth=1.6)
    overall = next(iter(curves.values()))["risk"].iloc[-1]
    axes.axhline(overall, color=BLACK, linestyle=":", linewidth=1, label=f"rejected at random: area {overall:.3f}")
    axes.set(xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend(figure, axes, "lower", ncols=2)
    return figure


def decision_curves(strata: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Draw net benefit against the threshold probability: the model, flag all, flag none.

    Args:
        strata: A row of panels each, by name; in each a panel a target of the first one, as from
            `decision.net_benefit`.
    """
    targets = list(next(iter(strata.values())))
    figure = canvas(height=1.0 + 2.4 * len(strata))
    panels = figure.subplots(len(strata), len(targets), squeeze=False, sharex=True)
    for row, (name, frames) in zip(panels, strata.items(), strict=True):
        for axes, target in zip(row, targets, strict=True):
            axes.set_title(f"{target}\n{name}", fontsize=9)
            if target in frames:
                _decision_curve(axes, frames[target])
        row[0].set_ylabel("net benefit")
    for axes in panels[-1]:
        axes.set_xlabel("threshold probability")
    legend(figure, panels[0, 0], "lower", ncols=3)
    plain(*panels.flat)
    return figure


def _decision_curve(axes: Axes, frame: pd.DataFrame) -> None:
    x = frame["threshold"]
    axes.fill_between(x, frame["low"].astype(float), frame["high"].astype(float), color=SKY, alpha=0.35, lw=0)
    axes.plot(x, frame["model"].astype(float), color=BLUE, label="model, with interval", linewidth=1.6)
    axes.plot(x, frame["all"], color=VERMILLION, linestyle="--", label="flag every image", linewidth=1.2)
    axes.axhline(0, color=BLACK, linestyle=":", linewidth=1, label="flag none")
    top = max(0.02, float(frame["model"].max()) * 1.25, float(frame["high"].fillna(0).max()) * 1.05)
    axes.set_ylim(-0.25 * top, top)


def sets_by_diagnosis(coverage: SetCoverage, *, nominal: float) -> Figure:
    """Draw the coverage of the prediction sets and their mean size, by diagnosis.

    Args:
        coverage: As from `decision.set_coverage`.
        nominal: Nominal coverage, 0..1.
    """
    shown = {name: row for name, row in {"all": coverage.overall, **coverage.by_diagnosis}.items() if row.images}
    figure = canvas(height=0.9 + 0.32 * len(shown))
    left, right = figure.subplots(1, 2, sharey=True)
    labels = [f"{name} (n = {row.images})" for name, row in shown.items()]
    for axes, metric in ((left, "coverage"), (right, "size")):
        intervals(axes, labels, [row.metrics[metric] for row in shown.values()])
    left.axvline(nominal, color=VERMILLION, linestyle="--", linewidth=1)
    left.set(xlabel=f"coverage (dashed: nominal, {nominal:.0%})", xlim=(-0.02, 1.02))
    right.set(xlabel="mean number of diagnoses in the set", xlim=(0.8, len(coverage.by_diagnosis) + 0.2))
    return figure


def models(rows: Mapping[str, Estimates], *, metrics: tuple[str, ...]) -> Figure:
    """Draw the named metrics of each model with their intervals, a panel for each metric."""
    figure = canvas(height=0.9 + 0.3 * len(rows))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        intervals(axes, list(rows), [numbers[metric] for numbers in rows.values()])
        axes.set(xlabel=HEADLINE_NAMES[metric], xlim=(-0.02, 1.02))
    return figure


def groups(found: Subgroups, overall: Estimates) -> Figure:
    """Draw accuracy and balanced accuracy of each group with their intervals, beside those of all images (dotted).

    Args:
        found: By fact, then group, as from `subgroups.subgroups`.
        overall: Metrics of all images.
    """
    rows = [(fact, name, each) for fact, parts in found.items() for name, each in parts.items()]
    labels = [
        f"{FACTS.get(fact, fact)}: {name} ({each.lesions}{'*' if each.note else ''})" for fact, name, each in rows
    ]
    figure = canvas(height=0.9 + 0.24 * len(rows))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, metric in zip(panels, ("accuracy", "balanced_accuracy"), strict=True):
        intervals(axes, labels, [each.metrics[metric] for _, _, each in rows])
        axes.set(xlabel=HEADLINE_NAMES[metric], xlim=(-0.02, 1.02))
        axes.tick_params(axis="y", labelsize=7)
        if (value := overall[metric].value) is not None:
            axes.axvline(value, color=BLACK, linestyle=":", linewidth=1)
        for place in range(1, len(rows)):
            if rows[place][0] != rows[place - 1][0]:
                axes.axhline(place - 0.5, color=BLACK, linewidth=0.5)
    return figure


def intervals(axes: Axes, labels: Sequence[str], numbers: Sequence[Estimate]) -> None:
    """Draw a labelled row for each number, the first on top: its value and interval, or that it is not computable."""
    for place, number in enumerate(numbers):
        if number.value is None:
            axes.text(0.02, place, "not computable", transform=axes.get_yaxis_transform(), fontsize=7, va="center")
            continue
        if number.low is not None and number.high is not None:
            axes.plot([number.low, number.high], [place, place], color=GREY, linewidth=2, solid_capstyle="round")
        axes.plot(number.value, place, "o", color=BLUE, ms=5)
    label_rows(axes, labels)
    plain(axes)
    axes.grid(visible=False, axis="y")
    axes.hlines(range(len(labels)), *axes.get_xlim(), color=PALE, linewidth=0.6, zorder=0)
