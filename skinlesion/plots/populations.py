"""Figure of two populations: diagnoses, patients' ages and image statistics."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinlesion.plots.style import BLUE, GREY, ORANGE, canvas, plain
from skinlesion.studies.external.populations import Population, compare_populations
from skinlesion.taxonomy import CODES

_PANELS = {
    "brightness": "mean grey value",
    "contrast": "standard deviation of the grey values",
    "saturation": "mean saturation",
    "aspect": "width / height",
    "age": "age, years",
}
_COLOURS = (BLUE, ORANGE)
_BINS = 30


def compared(first: Population, second: Population) -> Figure:
    """Draw the distributions of two populations, with the distance between them from 0 (equal) to 1."""
    both, apart = (first, second), compare_populations(first, second).apart
    figure = canvas(height=6.4)
    panels = figure.subplots(3, 2).ravel()
    _diagnoses(panels[0], both, apart["diagnoses"])
    for axes, (name, label) in zip(panels[1:], _PANELS.items(), strict=True):
        _distributions(axes, both, name)
        axes.set_xlabel(label, fontsize=8)
        axes.set_ylabel("share of the images", fontsize=8)
        axes.set_title(_title(name, apart[name]), fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    plain(*panels)
    panels[0].grid(visible=False, axis="x")
    return figure


def _diagnoses(axes: Axes, both: tuple[Population, Population], apart: float | None) -> None:
    places = np.arange(len(CODES))
    for offset, colour, each in zip((-0.2, 0.2), _COLOURS, both, strict=True):
        total = sum(each.diagnoses.values())
        shares = [each.diagnoses.get(code, 0) / total for code in CODES]
        bars = axes.bar(places + offset, shares, width=0.38, color=colour, label=f"{each.name} ({total:,} images)")
        labels = [f"{share:.0%}" if share >= 0.005 or not share else "<1%" for share in shares]
        axes.bar_label(bars, labels, fontsize=5.5, padding=1)
    axes.set_xticks(places, CODES)
    axes.set_ylabel("share of the images", fontsize=8)
    axes.margins(y=0.12)
    axes.set_title(_title("diagnoses", apart), fontsize=9)


def _distributions(axes: Axes, both: tuple[Population, Population], name: str) -> None:
    values = [each.measure(name) for each in both]
    known = np.concatenate(values)
    if not len(known):
        axes.text(0.5, 0.5, "not available", transform=axes.transAxes, ha="center", fontsize=8, color=GREY)
        return
    low, high = float(known.min()), float(known.max())
    if high - low < 1e-6:  # one value alone, as an aspect often is
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    for colour, own, fill in zip(_COLOURS, values, (True, False), strict=True):
        if len(own):
            style: dict[str, Any] = {"alpha": 0.45} if fill else {"histtype": "step", "linewidth": 1.5}
            axes.hist(own, bins=edges.tolist(), weights=np.full(len(own), 1 / len(own)), color=colour, **style)


def _title(name: str, apart: float | None) -> str:
    return f"{name}: {'no distance available' if apart is None else f'distance {apart:.2f}'}"
