"""Figures of the checks of saliency maps: randomised weights, deletion and insertion, and lesion masks."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from skinlesion.data.image_io import Image
from skinlesion.metrics.classification import Floats
from skinlesion.metrics.estimate import Estimate
from skinlesion.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, canvas, plain

if TYPE_CHECKING:
    from skinlesion.studies.explain.saliency import Map
    from skinlesion.studies.explain.saliency_checks import LesionOverlap
    from skinlesion.studies.explain.saliency_metrics import ReplacementCurves

_MARKS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": ":"},
    {"color": VERMILLION, "marker": "D", "linestyle": "-."},
    {"color": GREY, "marker": "x", "linestyle": "-"},
    {"color": BLACK, "marker": "+", "linestyle": "--"},
)
_WHISKERS: dict[str, Any] = {"ms": 4, "capsize": 2, "linewidth": 1.2}


def randomisation(members: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Draw the similarity of the maps to the trained ones while the weights are randomised from the logits down.

    Args:
        members: By member and randomised part, the rank correlation with the maps of the trained network.
    """
    figure = canvas(height=3.9)
    axes = figure.add_subplot()
    for (name, steps), style in zip(members.items(), _MARKS * len(members), strict=False):
        values, whiskers = points([Estimate(1.0, 1.0, 1.0), *steps.values()])
        axes.errorbar(range(len(values)), values, whiskers, label=name, **style, **_WHISKERS)
    parts = {tuple(steps) for steps in members.values()}  # differ between backbones
    longest = max(parts, key=len)
    alike = len(parts) == 1
    names = [fill(part, 12, break_long_words=False) if alike else str(n) for n, part in enumerate(longest, start=1)]
    rotation: dict[str, Any] = {"rotation": 45, "ha": "right"} if alike else {}
    axes.set_xticks(range(len(longest) + 1), ["trained", *names], **rotation)
    axes.set_xlabel("randomised parts, from the logits to the stem (cumulative)", fontsize=8)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set(ylim=(-1.02, 1.05), ylabel="rank correlation with the trained map")
    axes.set_title("Randomised weights: maps that depend on what was learned fall to 0", fontsize=10)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def randomised_maps(image: Image, maps: "Mapping[str, Map]") -> Figure:
    """Draw the map of one image for the trained network and while its weights are randomised.

    Args:
        image: (h, w, 3).
        maps: (h, w) by the part that was randomised last; the first map is that of the trained network.
    """
    columns = 5
    rows = -(-len(maps) // columns)
    figure = canvas(height=0.4 + 1.35 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, (name, values) in zip(panels.flat, maps.items(), strict=False):
        axes.imshow(image)
        axes.imshow(values, cmap="viridis", vmin=0, vmax=1, alpha=0.1 + 0.6 * values)
        axes.set_title(fill(name, 18), fontsize=7)
    return figure


def deletion_insertion(deletion: "ReplacementCurves", insertion: "ReplacementCurves") -> Figure:
    """Draw the probability of the predicted diagnosis while pixels are blurred, and while they are restored."""
    figure = canvas(height=3.4)
    panels = figure.subplots(1, 2, sharey=True)
    kinds = (
        (deletion, "Deletion (lower is better)", "share of pixels blurred"),
        (insertion, "Insertion (higher is better)", "share of pixels restored"),
    )
    for axes, (curves, title, label) in zip(panels, kinds, strict=True):
        orders = (("in the order of the map", curves.map, curves.area_map),
                  ("in random order", curves.random, curves.area_random))  # fmt: skip
        for (order, curve, area), style in zip(orders, _MARKS, strict=False):
            values, whiskers = points(curve)
            legend = f"{order}, area {area.value:.3f}"
            axes.errorbar(curves.fractions, values, whiskers, label=legend, **style, **_WHISKERS)
        axes.set_title(title, fontsize=9)
        axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.02), xlabel=label)
        axes.legend(fontsize=7, frameon=False)
        plain(axes)
    panels[0].set_ylabel("probability of the predicted diagnosis", fontsize=9)
    return figure


def on_lesion(overlap: "LesionOverlap") -> Figure:
    """Draw the overlap of maps with lesion masks, and the lesions' share of the image for comparison."""
    rows = {
        "maps whose maximum\nlies in the lesion": overlap.peak_inside,
        "share of the map\nin the lesion": overlap.energy_inside,
        "lesion's share of the image\n(a uniform map)": overlap.lesion_area,
    }
    figure = canvas(height=2.4)
    axes = figure.add_subplot()
    values, whiskers = points(list(rows.values()))
    axes.barh(range(len(rows)), values, xerr=whiskers, color=[BLUE, BLUE, GREY], height=0.6, capsize=3)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlim=(0, 1.02), ylim=(len(rows) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(f"Maps and lesion masks ({overlap.masks} images with a mask)", fontsize=10)
    plain(axes)
    return figure


def points(estimates: Sequence[Estimate]) -> tuple[Floats, Floats]:
    """Values (S,) of estimates and the lengths of both whiskers (2, S); NaN where there is no number."""
    value, low, high = (
        np.array([getattr(each, end) for each in estimates], dtype=np.float64) for end in ("value", "low", "high")
    )
    return value, np.maximum([value - low, high - value], 0)
