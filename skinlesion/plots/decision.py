"""Figures of decisions made from probabilities: calibration, the reject option, net benefit, prediction sets."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.calibration import expected_calibration_error, reliability_bins
from skinlesion.metrics.decision import SetCoverage
from skinlesion.metrics.estimate import Estimates
from skinlesion.plots.style import BLACK, BLUE, GREEN, ORANGE, SKY, VERMILLION, canvas, intervals, plain, wilson

_WAYS = {"confidence": (BLUE, "-"), "entropy": (ORANGE, "--"), "disagreement": (GREEN, "-.")}


def before_and_after(before: Predictions, after: Predictions, *, bins: int) -> Figure:
    """Draw accuracy against confidence in bins of equal mass, before and after calibration, side by side.

    The bars are 95 % intervals of Wilson (1927), doi:10.1080/01621459.1927.10502953.

    Args:
        before: With known actual diagnoses.
        after: The same images, calibrated.
        bins: Number of bins of the confidences.
    """
    figure = canvas(height=4.0)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, each, name, colour in zip(
        panels, (before, after), ("as voted", "calibrated"), (ORANGE, BLUE), strict=True
    ):
        frame = reliability_bins(each, bins=bins, edges="mass")
        frame = frame[frame["images"] > 0]
        shares = frame["accuracy"].to_numpy()
        low, high = wilson(shares, frame["images"].to_numpy())
        whiskers = np.maximum([shares - low, high - shares], 0)
        axes.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1)
        axes.errorbar(frame["confidence"], shares, whiskers, fmt="o-", color=colour, capsize=3, ms=4, linewidth=1)
        error = expected_calibration_error(frame)
        axes.set_title(f"{name}: error {error:.3f}", fontsize=10)
        axes.set(xlabel="confidence", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    panels[0].set_ylabel("accuracy")
    plain(*panels)
    return figure


def risk_against_coverage(curves: Mapping[str, pd.DataFrame], areas: Estimates) -> Figure:
    """Draw the share of wrong predictions among the most confident images against their share of all.

    Args:
        curves: By confidence score, as from `selective.risk_coverage`.
        areas: By confidence score, as from `selective.aurc`.
    """
    figure = canvas(height=3.4)
    axes = figure.add_subplot(xlabel="coverage: share of images that are kept", ylabel="share of these wrong")
    for name, curve in curves.items():
        colour, dashes = _WAYS[name]
        label = f"{name}: area {areas[name].value:.3f}"
        x, y = np.append(0, curve["coverage"]), np.append(curve["risk"].iloc[0], curve["risk"])
        axes.step(x, y, where="pre", color=colour, linestyle=dashes, label=label, linewidth=1.6)
    overall = next(iter(curves.values()))["risk"].iloc[-1]
    axes.axhline(overall, color=BLACK, linestyle=":", linewidth=1, label=f"rejected at random: area {overall:.3f}")
    axes.set(xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    plain(axes)
    return figure


def decision_curves(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw net benefit against the threshold probability for each target: the model, flag all, flag none.

    Args:
        frames: By target, as from `decision.net_benefit`.
    """
    figure = canvas(height=3.4)
    panels = figure.subplots(1, len(frames), squeeze=False)[0]
    for axes, (target, frame) in zip(panels, frames.items(), strict=True):
        x = frame["threshold"]
        if frame["low"].notna().all():
            axes.fill_between(x, frame["low"].astype(float), frame["high"].astype(float), color=SKY, alpha=0.35, lw=0)
        axes.plot(x, frame["model"].astype(float), color=BLUE, label="model, with interval", linewidth=1.6)
        axes.plot(x, frame["all"], color=VERMILLION, linestyle="--", label="flag every image", linewidth=1.2)
        axes.axhline(0, color=BLACK, linestyle=":", linewidth=1, label="flag none")
        top = max(0.02, float(frame["model"].max()) * 1.25, float(frame["high"].fillna(0).max()) * 1.05)
        axes.set(xlabel="threshold probability", ylim=(-0.25 * top, top))
        axes.set_title(target, fontsize=10)
    panels[0].set_ylabel("net benefit")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    plain(*panels)
    return figure


def sets_by_diagnosis(coverage: SetCoverage, *, wanted: float) -> Figure:
    """Draw how often the prediction sets hold the actual diagnosis, and how large they are, by diagnosis.

    Args:
        coverage: As from `decision.set_coverage`.
        wanted: Share of sets that were to hold the actual diagnosis, 0..1.
    """
    shown = {name: row for name, row in {"all": coverage.overall, **coverage.by_diagnosis}.items() if row.images}
    figure = canvas(height=0.9 + 0.32 * len(shown))
    left, right = figure.subplots(1, 2, sharey=True)
    labels = [f"{name} (n = {row.images})" for name, row in shown.items()]
    intervals(left, labels, [row.metrics["coverage"] for row in shown.values()])
    intervals(right, labels, [row.metrics["size"] for row in shown.values()])
    left.axvline(wanted, color=VERMILLION, linestyle="--", linewidth=1)
    left.set(xlabel=f"coverage (dashed: wanted, {wanted:.0%})", xlim=(-0.02, 1.02))
    right.set(xlabel="mean number of diagnoses in the set", xlim=(0.8, len(coverage.by_diagnosis) + 0.2))
    return figure
