"""Figures of the sanity checks of maps: randomised weights, deletion and insertion, and the lesion's mask."""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinlesion.data.image_io import Image
from skinlesion.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, VERMILLION, canvas, plain
from skinlesion.studies.explain.overlays import Map

_MARKS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": ":"},
    {"color": VERMILLION, "marker": "D", "linestyle": "-."},
    {"color": GREY, "marker": "x", "linestyle": "-"},
    {"color": BLACK, "marker": "+", "linestyle": "--"},
)
_WHISKERS: dict[str, Any] = {"ms": 4, "capsize": 2, "linewidth": 1.2}


def randomisation(found: Mapping[str, Any]) -> Figure:
    """Draw how alike the maps stay when the weights are randomised from the logits down.

    Args:
        found: By member, a list of steps with `part` and `correlation`.
    """
    members = found["members"]
    longest = max(len(steps) for steps in members.values())
    figure = canvas(height=3.9)
    axes = figure.add_subplot()
    for (name, steps), style in zip(members.items(), _MARKS * len(members), strict=False):
        values, whiskers = _points([{"value": 1.0, "low": 1.0, "high": 1.0}, *(step["correlation"] for step in steps)])
        axes.errorbar(range(len(values)), values, whiskers, label=name, **style, **_WHISKERS)
    first = next(steps for steps in members.values() if len(steps) == longest)
    named = [fill(step["part"], 12, break_long_words=False) for step in first]
    alike = len({tuple(step["part"] for step in steps) for steps in members.values()}) == 1
    labels = ["trained", *(named if alike else map(str, range(1, longest + 1)))]  # other backbones have other parts
    axes.set_xticks(range(longest + 1), labels, rotation=45 if alike else 0, ha="right" if alike else "center")
    axes.set_xlabel("parts randomised, from the logits down to the stem", fontsize=8)
    axes.axhline(0, color=BLACK, linewidth=0.8)
    axes.set(ylim=(-1.02, 1.05), ylabel="rank correlation with the trained map")
    axes.set_title("Weights randomised from the left on: a map that shows what was learned falls to 0", fontsize=10)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def cascade_strip(image: Image, maps: Mapping[str, Map]) -> Figure:
    """Draw one image's map before and while the weights are randomised.

    Args:
        image: (h, w, 3).
        maps: (h, w) by the part that was randomised last; the first is that of the trained network.
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


def deletion_insertion(found: Mapping[str, Any]) -> Figure:
    """Draw the probability of the predicted diagnosis while pixels are blurred away, and while they come back."""
    figure = canvas(height=3.4)
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"deletion": "deletion: the lower, the better", "insertion": "insertion: the higher, the better"}
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        each = found[kind]
        for order, style in zip(("map", "random"), _MARKS, strict=False):
            values, whiskers = _points(each[order])
            label = f"{_ORDERS[order]}, area {each[f'area_{order}']['value']:.3f}"
            axes.errorbar(each["fractions"], values, whiskers, label=label, **style, **_WHISKERS)
        axes.set_title(title, fontsize=9)
        axes.set(xlim=(-0.02, 1.02), ylim=(0, 1.02), xlabel="share of the pixels")
        axes.legend(fontsize=7, frameon=False)
        plain(axes)
    panels[0].set_ylabel("probability of the diagnosis", fontsize=9)
    return figure


_ORDERS = {"map": "in the order of the map", "random": "in random order"}


def on_lesion(found: Mapping[str, Any]) -> Figure:
    """Draw how often a map's peak lies in the lesion, and how much of the map, beside how large lesions are."""
    names = {
        "peak_inside": "maps whose peak\nlies in the lesion",
        "energy_inside": "share of the map\nin the lesion",
        "lesion_area": "share of the image that the\nlesion covers (a map of nothing)",
    }
    figure = canvas(height=2.4)
    axes: Axes = figure.add_subplot()
    values, whiskers = _points([found[name] for name in names])
    places = np.arange(len(names))
    axes.barh(places, values, xerr=whiskers, color=[BLUE, BLUE, GREY], height=0.6, capsize=3)
    axes.set_yticks(places, list(names.values()))
    axes.set(xlim=(0, 1.02), ylim=(len(names) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(f"Maps on the lesion's mask ({found['masks']} images with a mask)", fontsize=10)
    plain(axes)
    return figure


def _points(measured: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Values (S,) and the lengths of both whiskers (2, S); NaN where a number cannot be computed."""
    value, low, high = (
        np.array([np.nan if each[key] is None else each[key] for each in measured]) for key in ("value", "low", "high")
    )
    return value, np.maximum([value - low, high - value], 0)
