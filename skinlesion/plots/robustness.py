"""Figures of robustness: curves against the steps of each disturbance, facts, the removed lesion, novelty."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from skinlesion.metrics.classification import Floats
from skinlesion.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION, canvas, plain

REMOVED = "lesion_removed"  # has a figure of its own
_LINES = {
    "balanced_accuracy": ("balanced accuracy", BLUE, "o", "-"),
    "macro_f1": ("macro-F1", ORANGE, "s", "--"),
    "recall_mel": ("sensitivity for melanoma", GREEN, "^", ":"),
}
_NOVEL = ("flagged as novel", GREY, "x", "-.")
_FACTS = {
    "no_age": "age removed",
    "no_sex": "sex removed",
    "no_localization": "localization removed",
    "nothing_known": "all facts removed",
    "permuted": "facts of another patient",
    "contradictory": "facts of a patient of the\nother category",
}


def curves(found: Mapping[str, Any]) -> Figure:
    """Draw the numbers against the steps of each disturbance of the images but the removed lesion."""
    names = [name for name in found["images"] if name != REMOVED]
    rows = -(-len(names) // 2)
    figure = canvas(height=0.7 + 1.9 * rows)
    panels = figure.subplots(rows, 2, sharey=True, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels.flat, names, strict=False):
        _steps(axes, found, name)
        axes.set_title(name.replace("_", " "), fontsize=9)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def lesion_removed(found: Mapping[str, Any]) -> Figure:
    """Draw what is still right when the image is painted over from its middle: that is a shortcut."""
    figure = canvas(height=4.2)
    axes = figure.add_subplot()
    _steps(axes, found, REMOVED)
    for name, style in (("balanced_accuracy", ":"), ("macro_f1", (0, (1, 3)))):
        label = f"{_LINES[name][0]} of always the commonest"
        axes.axhline(found["without_images"][name], color=_LINES[name][1], linestyle=style, linewidth=1, label=label)
    axes.set_title("The lesion removed: what is still right does not come from it", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def facts(found: Mapping[str, Any]) -> Figure:
    """Draw the numbers with the facts as they are, missing, and wrong."""
    names = [name for name in _FACTS if name in found["facts"]]
    measured = [found["undisturbed"]["numbers"], *(found["facts"][name]["steps"][0]["numbers"] for name in names)]
    figure = canvas(height=1.2 + 0.42 * len(measured))
    axes = figure.add_subplot()
    places = np.arange(len(measured))
    for offset, (number, (label, colour, marker, _)) in zip((-0.2, 0.0, 0.2), _LINES.items(), strict=True):
        values, whiskers = _values([each[number] for each in measured])
        axes.errorbar(
            values, places + offset, xerr=whiskers, fmt=marker, color=colour, capsize=2, ms=4, linewidth=1, label=label
        )
    axes.set_yticks(places, ["facts as they are", *(_FACTS[name] for name in names)])
    axes.set(ylim=(len(measured) - 0.5, -0.5), xlim=(0, 1.02))
    axes.set_xlabel(f"with {found['level']:.0%} intervals over lesions", fontsize=8)
    plain(axes)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def novelty(scores: Mapping[str, Floats], told: Mapping[str, Mapping[str, Any]], *, threshold: float) -> Figure:
    """Draw how novel dermoscopic images and other pictures are.

    Args:
        scores: By kind, of the pictures; the first kind is dermoscopy.
        told: By kind but the first, as from `robustness.told_apart`.
        threshold: Above which a picture is flagged.
    """
    figure = canvas(height=1.1 + 0.36 * len(scores))
    axes = figure.add_subplot()
    places = np.arange(len(scores))
    axes.boxplot(
        list(scores.values()),
        positions=places,
        orientation="horizontal",
        widths=0.6,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": SKY, "edgecolor": BLACK},
        medianprops={"color": VERMILLION, "linewidth": 2},
    )
    axes.axvline(threshold, color=BLACK, linestyle="--", linewidth=1)
    names = [_told(kind.replace("_", " "), told.get(kind)) for kind in scores]
    axes.set_yticks(places, names)
    axes.set_ylim(len(scores) - 0.5, -0.5)
    axes.set_xscale("symlog", linthresh=2)
    highest = max(float(np.quantile(each, 0.95)) for each in scores.values())
    axes.set_xticks([tick for tick in (-1, 0, 1, 2, 5, 10, 20, 50, 100, 1000) if tick <= max(highest, 2)])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("novelty: 0 is the middle validation image; above the dashed line a picture is flagged", fontsize=8)
    axes.set_title("Does it look like dermoscopy? Box: quartiles, whiskers: 5 % to 95 %", fontsize=10)
    plain(axes)
    return figure


def _told(kind: str, measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return kind
    return f"{kind}\nAUROC {measured['auroc']['value']:.3f}, {measured['flagged']['value']:.0%} flagged"


def _steps(axes: Axes, found: Mapping[str, Any], name: str) -> None:
    """One disturbance: each number at each step, with whiskers; the undisturbed images stand at the neutral step."""
    each = found["images"][name]
    points = [(each["neutral"], found["undisturbed"]["numbers"])]
    points += [(step["step"], step["numbers"]) for step in each["steps"]]
    ordered = sorted(points, key=lambda point: point[0], reverse=each["neutral"] >= 100)  # quality falls
    places = np.arange(len(ordered))
    lines = {**_LINES, "novel": _NOVEL}
    for shift, (number, (label, colour, marker, style)) in zip(np.linspace(-0.09, 0.09, 4), lines.items(), strict=True):
        if number not in ordered[0][1]:
            continue
        values, whiskers = _values([measured[number] for _, measured in ordered])
        axes.errorbar(
            places + shift, values, whiskers, fmt=marker, linestyle=style, color=colour, capsize=2, ms=4,
            linewidth=1.2, label=label,
        )  # fmt: skip
    labels = [f"{step:g}" + ("\n(as it was)" if step == each["neutral"] else "") for step, _ in ordered]
    axes.set_xticks(places, labels)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(each["unit"], fontsize=8)
    plain(axes)


def _values(measured: list[dict[str, Any]]) -> tuple[Floats, Floats]:
    """Values (S,) and the lengths of both whiskers (2, S); NaN where a number cannot be computed."""
    value, low, high = (
        np.array([np.nan if each[key] is None else each[key] for each in measured]) for key in ("value", "low", "high")
    )
    return value, np.maximum([value - low, high - value], 0)
