"""The picture of an explanation: image, maps, probabilities and what the patient's facts changed, on one page."""

from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from skinlesion.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PALE, VERMILLION, canvas, plain
from skinlesion.studies.explain.overlays import Explanation, Map
from skinlesion.taxonomy import CODES, DIAGNOSES

_NAMES = {diagnosis.code: diagnosis.name for diagnosis in DIAGNOSES}
_FACTS = {"age": BLUE, "sex": ORANGE, "localization": GREEN}
_COLOURS = "viridis"  # read in the same order with every kind of colour vision, and in grey
_MOST = 6  # members in a row
_LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}


def explanation_page(explanation: Explanation) -> Figure:
    """Draw why an image was diagnosed as it was, so that it can be read without a manual."""
    members = _member_rows(explanation)
    figure = canvas(height=5.9 + 1.25 * len(members))
    figure.suptitle(_heading(explanation), fontsize=10, x=0.01, ha="left", color=_INK[explanation.novel])
    heights = [2.3, *[1.15] * len(members), 2.9]
    above, *rows, below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _image_and_maps(above, explanation)
    for row, names in zip(rows, members, strict=True):
        _members(row, explanation, names)
    left, right = below.subplots(1, 2, width_ratios=[1, 1.15])
    _probabilities(left, explanation)
    _response(right, explanation)
    figure.supxlabel(_FOOTER, fontsize=7, color=BLACK, x=0.01, ha="left")
    return figure


_INK = {False: BLACK, True: VERMILLION}
_FOOTER = (
    "Bright: what was found there speaks for the diagnosis named above the map (Grad-CAM); the white line is half the\n"
    "range. A map shows where the model looked, not where disease is. Research use only, not a medical device."
)


def _heading(explanation: Explanation) -> str:
    code = explanation.predicted
    share = float(explanation.probabilities.max())
    facts = ", ".join(f"{fact} {_value(value)}" for fact, value in explanation.facts.items())
    warning = "\nThis image does not look like dermoscopy: the answer means little." if explanation.novel else ""
    return (
        f"{explanation.name}: most likely {_NAMES[code]} ({code}), probability {share:.0%}\nPatient: {facts}{warning}"
    )


def _value(value: float | str | None) -> str:
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _image_and_maps(part: SubFigure, explanation: Explanation) -> None:
    """The image alone, with the map of each asked diagnosis, and with CBAM's factors."""
    panels = part.subplots(1, 2 + len(explanation.maps))
    _bare(panels[0], explanation, "the image\nas it was taken")
    _bar(part, panels[0], "").ax.set_visible(False)  # as much room below as the others have
    for axes, (code, values) in zip(panels[1:], explanation.maps.items(), strict=False):
        kind = "predicted" if code == explanation.predicted else "chosen"
        _bare(axes, explanation, f"what speaks for {code}\n({kind})")
        _lay(axes, values, low=0.0, high=1.0)
        _bar(part, axes, "share of the greatest value")
    last, spatial = panels[-1], explanation.spatial
    if spatial is None:
        last.set_axis_off()
        last.text(0.5, 0.5, "no spatial attention\nin this model", ha="center", va="center", fontsize=8)
        return
    _bare(last, explanation, "spatial attention\n(CBAM)")
    _lay(last, spatial, low=float(spatial.min()), high=float(spatial.max()))
    _bar(part, last, "factor")


def _bare(axes: Axes, explanation: Explanation, title: str) -> None:
    axes.imshow(explanation.image)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=8)


def _lay(axes: Axes, values: Map, *, low: float, high: float) -> None:
    """Lay a map onto an image: clear where it is low, so that the image is still seen; a line at half the range."""
    if np.ptp(values) == 0:
        axes.text(0.5, 0.5, "nothing", transform=axes.transAxes, ha="center", va="center", fontsize=8, bbox=_LABEL)
    strength = (values - low) / (high - low) if high > low else np.zeros_like(values)
    axes.imshow(values, cmap=_COLOURS, vmin=low, vmax=high, alpha=0.1 + 0.6 * np.clip(strength, 0, 1))
    if values.min() < (low + high) / 2 < values.max():
        axes.contour(values, levels=[(low + high) / 2], colors="white", linewidths=1.0)


def _bar(part: SubFigure, axes: Axes, label: str) -> Colorbar:
    """The colours of a panel's last map, unblended, below it."""
    low, high = axes.images[-1].get_clim()
    scale = ScalarMappable(Normalize(low, high), _COLOURS)
    bar = part.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.85, pad=0.03)
    bar.set_ticks([low, (low + high) / 2, high], labels=[f"{value:.2g}" for value in (low, (low + high) / 2, high)])
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return bar


def _member_rows(explanation: Explanation) -> list[list[str]]:
    names = list(explanation.members) if len(explanation.members) > 1 else []
    return [names[start : start + _MOST] for start in range(0, len(names), _MOST)]


def _members(part: SubFigure, explanation: Explanation, names: list[str]) -> None:
    """The map of each member for the chosen diagnosis."""
    panels = np.atleast_1d(part.subplots(1, _MOST))
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        _bare(axes, explanation, fill(name, 18))
        axes.title.set_fontsize(6)
        _lay(axes, explanation.members[name], low=0.0, high=1.0)
    panels[0].set_ylabel(f"members,\n{explanation.chosen}", fontsize=8, rotation=0, ha="right", va="center")


def _probabilities(axes: Axes, explanation: Explanation) -> None:
    rows, values = np.arange(len(CODES)), explanation.probabilities
    colours = [BLUE if code == explanation.predicted else GREY for code in CODES]
    bars = axes.barh(rows, values, color=colours)
    axes.bar_label(bars, [f"{value:.0%}" if value >= 0.005 else "<1%" for value in values], padding=3, fontsize=7)
    axes.set_yticks(rows, [fill(f"{_NAMES[code]} ({code})", 27) for code in CODES])
    axes.set(xlim=(0, 1.12), ylim=(len(CODES) - 0.5, -0.5), xticks=[0, 0.5, 1])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title("probability", fontsize=9)
    plain(axes)
    axes.tick_params(labelsize=7)


def _response(axes: Axes, explanation: Explanation) -> None:
    """How much each known fact changes each probability, in percentage points."""
    plain(axes)
    axes.set_title("what each fact changes,\ncompared with not knowing it", fontsize=9)
    axes.set_yticks(range(len(CODES)), CODES)
    axes.set(ylim=(len(CODES) - 0.5, -0.5), xlabel="percentage points of probability")
    axes.xaxis.label.set_fontsize(8)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    if not explanation.response:
        axes.set_facecolor(PALE)
        axes.text(0.5, 0.5, "no fact about the patient was given", transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xticks([])
        return
    height = 0.8 / len(explanation.response)
    for place, (fact, change) in enumerate(explanation.response.items()):
        offset = (place - (len(explanation.response) - 1) / 2) * height
        label = f"{fact} {_value(explanation.facts[fact])}"
        axes.barh(np.arange(len(CODES)) + offset, 100 * change, height, color=_FACTS.get(fact, VERMILLION), label=label)
    reach = max(1.0, 115 * max(float(np.abs(change).max()) for change in explanation.response.values()))
    axes.set_xlim(-reach, reach)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
