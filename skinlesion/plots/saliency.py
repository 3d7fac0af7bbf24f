"""Figures of saliency maps: the page that explains one prediction, and the checks of the maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from skinlesion.data.image_io import Image, read
from skinlesion.metrics.estimate import Estimate
from skinlesion.metrics.saliency_verdict import OUTCOMES, UNRELATED, randomisation_verdict, verdict
from skinlesion.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    VERMILLION,
    bare,
    canvas,
    label_rows,
    legend,
    panel,
    plain,
    points,
)

if TYPE_CHECKING:
    from skinlesion.studies.explain.explanation import Explanation
    from skinlesion.studies.explain.saliency import Map
    from skinlesion.studies.explain.saliency_checks import LesionOverlap
    from skinlesion.studies.explain.saliency_metrics import ReplacementCurves
    from skinlesion.studies.probe.cases import Case

_FACTS = {"age": BLUE, "sex": ORANGE, "localization": GREEN}
_COLOURS = "viridis"  # ordered for every kind of colour vision, and in grey
_PER_ROW = 6  # member maps
_LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
_FOOTER = (
    "Bright areas support the diagnosis named above the map (Grad-CAM); the white line marks half of the range.\n"
    "A map shows what the model uses, not where disease is. Research use only, not a medical device."
)
_MARKS: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": ORANGE, "marker": "s", "linestyle": "--"},
    {"color": GREEN, "marker": "^", "linestyle": ":"},
    {"color": VERMILLION, "marker": "D", "linestyle": "-."},
    {"color": GREY, "marker": "x", "linestyle": "-"},
    {"color": BLACK, "marker": "+", "linestyle": "--"},
)
_WHISKERS: dict[str, Any] = {"ms": 4, "capsize": 2, "linewidth": 1.2}


def explanation_page(explanation: "Explanation") -> Figure:
    """Draw the explanation of one prediction on one page."""
    names = list(explanation.members) if len(explanation.members) > 1 else []
    rows = [names[start : start + _PER_ROW] for start in range(0, len(names), _PER_ROW)]
    figure = canvas(height=5.9 + 1.25 * len(rows))
    code, share = explanation.predicted, float(explanation.probabilities.max())
    name = explanation.taxonomy.diagnosis(code).name
    heading = f"{explanation.name}: predicted {name} ({code}), probability {share:.0%}\nPatient: "
    heading += ", ".join(f"{fact} {_value(value)}" for fact, value in explanation.facts.items())
    if explanation.is_ood:
        heading += "\nThe image is unlike the training images: the prediction is unreliable."
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left", color=VERMILLION if explanation.is_ood else BLACK)
    heights = [2.3, *[1.15] * len(rows), 2.9]
    above, *middle, below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _image_and_maps(above, explanation)
    for part, row in zip(middle, rows, strict=True):
        _members(part, explanation, row)
    left, right = below.subplots(1, 2, width_ratios=[1, 1.15])
    _probabilities(left, explanation)
    _fact_effects(right, explanation)
    figure.supxlabel(_FOOTER, fontsize=7, color=BLACK, x=0.01, ha="left")
    return figure


def nearest_cases(cases: "Sequence[Case]") -> Figure:
    """Draw training images that are most like an image, the nearest first, with how each was confirmed."""
    figure = canvas(height=2.2)
    for axes, case in zip(np.ravel(figure.subplots(1, len(cases))), cases, strict=True):
        if Path(case.path).is_file():
            axes.imshow(read(Path(case.path)))
        bare(axes)
        confirmed = case.dx_type or "unknown"
        axes.set_title(f"{case.image_id}\n{case.diagnosis}, by {confirmed}\n{case.similarity:.3f}", fontsize=7)
    return figure


def _value(value: float | str | None) -> str:
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _image_and_maps(part: SubFigure, explanation: "Explanation") -> None:
    """Draw the image alone, with the map of each explained diagnosis, and with CBAM's factors."""
    panels = part.subplots(1, 2 + len(explanation.maps))
    _draw_image(panels[0], explanation, "original image\n")
    _colour_bar(part, panels[0], "").ax.set_visible(False)  # reserves the room of the other panels' bars
    for axes, (code, values) in zip(panels[1:], explanation.maps.items(), strict=False):
        kind = "predicted" if code == explanation.predicted else "chosen"
        _draw_image(axes, explanation, f"evidence for {code}\n({kind})")
        _overlay(axes, values, low=0.0, high=1.0)
        _colour_bar(part, axes, "share of the maximum")
    last, spatial = panels[-1], explanation.spatial
    if spatial is None:
        last.set_axis_off()
        last.text(0.5, 0.5, "no spatial attention\nin this model", ha="center", va="center", fontsize=8)
        return
    _draw_image(last, explanation, "spatial attention\n(CBAM)")
    _overlay(last, spatial, low=float(spatial.min()), high=float(spatial.max()))
    _colour_bar(part, last, "factor")


def _draw_image(axes: Axes, explanation: "Explanation", title: str) -> None:
    axes.imshow(explanation.image)
    bare(axes)
    axes.set_title(title, fontsize=8)


def _overlay(axes: Axes, values: "Map", *, low: float, high: float) -> None:
    """Draw a map over an image: transparent where it is low, with a contour at half of the range."""
    if np.ptp(values) == 0:
        axes.text(0.5, 0.5, "no evidence", transform=axes.transAxes, ha="center", va="center", fontsize=8, bbox=_LABEL)
    strength = (values - low) / (high - low) if high > low else np.zeros_like(values)
    axes.imshow(values, cmap=_COLOURS, vmin=low, vmax=high, alpha=0.1 + 0.6 * np.clip(strength, 0, 1))
    if values.min() < (low + high) / 2 < values.max():
        axes.contour(values, levels=[(low + high) / 2], colors="white", linewidths=1.0)


def _colour_bar(part: SubFigure, axes: Axes, label: str) -> Colorbar:
    """Draw the opaque colours of a panel's map below it."""
    low, high = axes.images[-1].get_clim()
    ticks = [low, (low + high) / 2, high]
    scale = ScalarMappable(Normalize(low, high), _COLOURS)
    bar = part.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.85, pad=0.03)
    bar.set_ticks(ticks, labels=[f"{value:.2g}" for value in ticks])
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return bar


def _members(part: SubFigure, explanation: "Explanation", names: list[str]) -> None:
    """Draw the target's map of each member."""
    panels = part.subplots(1, max(len(names), 4))
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        _draw_image(axes, explanation, fill(name, 18))
        axes.title.set_fontsize(6)
        _overlay(axes, explanation.members[name], low=0.0, high=1.0)
    panels[0].set_ylabel(f"members,\n{explanation.target}", fontsize=8, rotation=0, ha="right", va="center")


def _probabilities(axes: Axes, explanation: "Explanation") -> None:
    values = explanation.probabilities
    colours = [BLUE if code == explanation.predicted else GREY for code in explanation.taxonomy.codes]
    bars = axes.barh(range(len(values)), values, color=colours)
    axes.bar_label(bars, [f"{value:.0%}" if value >= 0.005 else "<1%" for value in values], padding=3, fontsize=7)
    label_rows(axes, [fill(f"{each.name} ({each.code})", 27) for each in explanation.taxonomy.diagnoses])
    axes.set(xlim=(0, 1.12), xticks=[0, 0.5, 1])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title("probability", fontsize=9)
    plain(axes)
    axes.tick_params(labelsize=7)


def _fact_effects(axes: Axes, explanation: "Explanation") -> None:
    """Draw the change of each probability by each known fact, in percentage points."""
    plain(axes)
    axes.set_title("effect of each fact,\ncompared with leaving it out", fontsize=9)
    label_rows(axes, explanation.taxonomy.codes)
    axes.set_xlabel("change in probability, percentage points", fontsize=8)
    axes.axvline(0, color=BLACK, linewidth=0.8)
    effects = explanation.fact_effects
    if not effects:
        axes.set_facecolor(PALE)
        axes.text(0.5, 0.5, "no facts about the patient given", transform=axes.transAxes, ha="center", fontsize=8)
        axes.set_xticks([])
        return
    height = 0.8 / len(effects)
    for number, (fact, change) in enumerate(effects.items()):
        offset = (number - (len(effects) - 1) / 2) * height
        label = f"{fact} {_value(explanation.facts[fact])}"
        axes.barh(
            np.arange(len(change)) + offset, 100 * change, height, color=_FACTS.get(fact, VERMILLION), label=label
        )
    reach = max(1.0, 115 * max(float(np.abs(change).max()) for change in effects.values()))
    axes.set_xlim(-reach, reach)
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def randomisation(members: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Draw the similarity of the maps to the trained ones while the weights are randomised from the logits down.

    Args:
        members: By member and randomised part, the rank correlation with the maps of the trained network.
    """
    worst, _ = randomisation_verdict({name: list(steps.values())[-1] for name, steps in members.items()})
    title = f"Randomised weights: the sanity check {OUTCOMES[worst]}"
    figure, axes = panel(height=3.9, title=title)
    axes.axhspan(-UNRELATED, UNRELATED, color=PALE, label=f"unrelated maps: within {UNRELATED} of 0")
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
    legend(figure, axes, "lower", ncols=3)
    return figure


def randomised_maps(image: Image, maps: "Mapping[str, Map]") -> Figure:
    """Draw the map of one image for the trained network and while its weights are randomised.

    Args:
        image: (h, w, 3).
        maps: (h, w) by the part that was randomised last; the first map is that of the trained network.
    """
    columns = 5
    rows = -(-len(maps) // columns)
    figure = canvas(height=0.6 + 1.35 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle("One image while weights are randomised: the last map should not resemble the first", fontsize=9)
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
        (deletion, "deletion", "lower is better", "share of pixels blurred"),
        (insertion, "insertion", "higher is better", "share of pixels restored"),
    )
    for axes, (curves, name, better, label) in zip(panels, kinds, strict=True):
        orders = (
            ("in the order of the map", curves.map, curves.area_map),
            ("in random order", curves.random, curves.area_random),
        )
        for (order, curve, area), style in zip(orders, _MARKS, strict=False):
            values, whiskers = points(curve)
            legend = f"{order}, area {area.value:.3f}"
            axes.errorbar(curves.fractions, values, whiskers, label=legend, **style, **_WHISKERS)
        outcome = OUTCOMES[verdict(name, curves.area_less_random)]
        axes.set_title(f"{name.capitalize()} ({better}): {outcome}", fontsize=9)
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
    figure, axes = panel(height=2.4, title=f"Maps and lesion masks ({overlap.masks} images with a mask)")
    values, whiskers = points(list(rows.values()))
    axes.barh(range(len(rows)), values, xerr=whiskers, color=[BLUE, BLUE, GREY], height=0.6, capsize=3)
    label_rows(axes, list(rows))
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    return figure
