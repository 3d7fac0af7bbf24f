"""Figures of robustness: metrics by step of each corruption, altered facts, and out-of-distribution scores."""

import re
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from skinlesion.plots.style import (
    BLACK,
    BLUE,
    BOXES,
    GREEN,
    GREY,
    ORANGE,
    canvas,
    label_rows,
    legend,
    panel,
    plain,
    points,
)

if TYPE_CHECKING:
    from skinlesion.studies.robustness.detection import OodResult
    from skinlesion.studies.robustness.study import RobustnessResult

REMOVED = "lesion_removed"  # has its own figure
NAMES = {
    "jpeg": "JPEG compression",
    "colour": "colour shift",
    "skin_tone": "lightness of the skin",
    "lesion_removed": "lesion removed",
    "nothing_known": "without any fact",
    "permuted": "facts of another patient",
    "contradictory": "facts of a patient of the other category",
}
"""Names of corruptions and of altered facts that are called otherwise in the results."""


def name_of(name: str) -> str:
    """Name a corruption or an altered fact, such as no_age, for people."""
    return NAMES.get(name) or re.sub("^no_", "without ", name).replace("_", " ")


def _lines(found: "RobustnessResult") -> dict[str, tuple[str, str, str, str]]:
    """Label, colour, marker and dashes of each metric."""
    main = found.taxonomy.main_target
    lines = {"balanced_accuracy": ("balanced accuracy", BLUE, "o", "-"), "macro_f1": ("macro-F1", ORANGE, "s", "--")}
    if main is not None:
        lines[f"recall_{main}"] = (f"sensitivity for {found.taxonomy.diagnosis(main).name}", GREEN, "^", ":")
    return {**lines, "novel": ("flagged as out-of-distribution", GREY, "x", "-.")}


def curves(found: "RobustnessResult") -> Figure:
    """Draw the metrics against the steps of each corruption except the removed lesion."""
    names = [name for name in found.corruptions if name != REMOVED]
    rows = -(-len(names) // 2)
    figure = canvas(height=0.5 + 1.8 * rows)
    panels = figure.subplots(rows, 2, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels.flat, names, strict=False):
        _draw_steps(axes, found, name)
        axes.set_title(f"{name_of(name)}: {found.corruptions[name].unit}", fontsize=9)
    legend(figure, panels.flat[0], "upper", ncols=4)
    return figure


def lesion_removed(found: "RobustnessResult") -> Figure:
    """Draw the metrics while the lesion is painted over, which shows shortcuts."""
    title = "Lesion removed: remaining performance comes from surroundings, facts and prevalence"
    figure, axes = panel(height=4.2, title=title)
    _draw_steps(axes, found, REMOVED)
    axes.set_xlabel(found.corruptions[REMOVED].unit)
    for name, style in (("balanced_accuracy", ":"), ("macro_f1", (0, (1, 3)))):
        label, colour, _, _ = _lines(found)[name]
        label = f"{label}, most frequent diagnosis"
        axes.axhline(found.without_images[name], color=colour, linestyle=style, linewidth=1, label=label)
    legend(figure, axes, "lower", ncols=3)
    return figure


def facts(found: "RobustnessResult") -> Figure:
    """Draw the metrics with the original, missing and wrong facts."""
    rows = {
        "original facts": found.undisturbed,
        **{fill(name_of(name), 26): each for name, each in found.facts.items()},
    }
    figure, axes = panel(height=1.2 + 0.42 * len(rows))
    lines = {number: line for number, line in _lines(found).items() if all(number in each for each in rows.values())}
    for offset, (number, (label, colour, marker, _)) in zip((-0.2, 0.0, 0.2), lines.items(), strict=False):
        values, xerr = points([each[number] for each in rows.values()])
        y = np.arange(len(rows)) + offset
        axes.errorbar(values, y, xerr=xerr, fmt=marker, color=colour, capsize=2, ms=4, linewidth=1, label=label)
    label_rows(axes, list(rows))
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"value with {found.level:.0%} interval", fontsize=8)
    legend(figure, axes, "upper", ncols=3)
    return figure


def ood_scores(found: "OodResult") -> Figure:
    """Draw the out-of-distribution scores of the original images and of each other kind of images."""
    labels = [kind.replace("_", " ") for kind in found.scores]
    for row, kind in enumerate(found.scores):
        if (each := found.pictures.get(kind)) is not None:
            labels[row] += f"\nAUROC {each.auroc.value:.3f}, {each.flagged.value:.0%} flagged"
    title = "Out-of-distribution scores (box: quartiles; whiskers: 5 % to 95 %)"
    figure, axes = panel(height=1.1 + 0.36 * len(labels), title=title)
    axes.boxplot(list(found.scores.values()), positions=range(len(labels)), showfliers=False, **BOXES)
    axes.axvline(found.threshold, color=BLACK, linestyle="--", linewidth=1)
    label_rows(axes, labels)
    axes.set_xscale("symlog", linthresh=2)
    highest = max(float(np.quantile(each, 0.95)) for each in found.scores.values())
    axes.set_xticks([tick for tick in (-1, 0, 1, 2, 5, 10, 20, 50, 100, 1000) if tick <= max(highest, 2)])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("score: 0 is the median validation image; images right of the dashed line are flagged", fontsize=8)
    return figure


def _draw_steps(axes: Axes, found: "RobustnessResult", name: str) -> None:
    """Draw each metric at each step of one corruption, with the original images at the neutral step."""
    corruption = found.corruptions[name]
    neutral = corruption.neutral
    steps = sorted({neutral: found.undisturbed, **corruption.steps}.items(), reverse=neutral >= 100)  # JPEG quality
    shown = {number: style for number, style in _lines(found).items() if number in found.undisturbed}
    shifts = np.linspace(-0.09, 0.09, 4)
    for shift, (number, (label, colour, marker, dashes)) in zip(shifts, shown.items(), strict=False):
        values, whiskers = points([numbers[number] for _, numbers in steps])
        style: dict[str, Any] = {"fmt": marker, "linestyle": dashes, "color": colour, "label": label}
        axes.errorbar(np.arange(len(steps)) + shift, values, whiskers, capsize=2, ms=4, linewidth=1.2, **style)
    axes.set_xticks(range(len(steps)), ["original" if step == neutral else f"{step:g}" for step, _ in steps])
    axes.set_ylim(-0.03, 1.03)
    plain(axes)
