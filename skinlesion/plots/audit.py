"""Figures of a data set: diagnoses, ages, sexes, localizations, images per lesion, sample images, and of two sets."""

from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinlesion.data.skin import BORDERS
from skinlesion.plots.style import (
    BLACK,
    BLUE,
    BOXES,
    GREY,
    ORANGE,
    PALE,
    SKY,
    bare,
    canvas,
    label_rows,
    legend,
    panel,
    plain,
)
from skinlesion.taxonomy import HAM10000, Taxonomy

if TYPE_CHECKING:
    from skinlesion.studies.external.populations import Population

_SEXES = {"female": SKY, "male": ORANGE, "unknown": GREY}
_MOST = 4  # images of a lesion; lesions with more are drawn together with these
_MEASURES = {
    "brightness": "mean grey value",
    "contrast": "standard deviation of the grey values",
    "saturation": "mean saturation",
    "aspect": "width / height",
    "age": "age, years",
}
_BINS = 30  # of the histograms of two populations


def diagnoses(frame: pd.DataFrame, taxonomy: Taxonomy = HAM10000) -> Figure:
    """Draw how many images and lesions each diagnosis has."""
    images = _per_diagnosis(frame, taxonomy)
    lesions = _per_diagnosis(frame.drop_duplicates("lesion_id"), taxonomy)
    title = f"{len(frame):,} images of {frame['lesion_id'].nunique():,} lesions"
    figure, axes = _diagnosis_rows(_names(taxonomy), title, "count (share of all)")
    rows = np.arange(len(taxonomy))
    for offset, counts, colour, name in ((-0.2, images, BLUE, "images"), (0.2, lesions, SKY, "lesions")):
        bars = axes.barh(rows + offset, counts, height=0.38, color=colour, label=name)
        total = max(sum(counts), 1)
        axes.bar_label(bars, [f"{n:,} ({n / total:.1%})" for n in counts], padding=3, fontsize=7)
    axes.margins(x=0.16)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return figure


def ages(frame: pd.DataFrame, taxonomy: Taxonomy = HAM10000) -> Figure:
    """Draw the patients' ages by diagnosis: box from first to third quartile, whiskers from 5 % to 95 %."""
    known = [frame.loc[frame["diagnosis"] == code, "age"].dropna() for code in taxonomy.codes]
    absent = _per_diagnosis(frame[frame["age"].isna()], taxonomy)
    labels = [
        f"{name}\nn = {len(values):,}" + (f", {none} without age" if none else "")
        for name, values, none in zip(_names(taxonomy), known, absent, strict=True)
    ]
    title = "Age by diagnosis (images): median, quartiles, 5 % and 95 %"
    figure, axes = _diagnosis_rows(labels, title, "age of the patient, years")
    drawn = [row for row, values in enumerate(known) if len(values)]
    if drawn:
        axes.boxplot(
            [known[row].to_numpy() for row in drawn],
            positions=drawn,
            manage_ticks=False,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": GREY},
            **BOXES,
        )
    else:
        axes.text(0.5, 0.5, "no age is known", transform=axes.transAxes, ha="center", fontsize=9, color=GREY)
    return figure


def sexes(frame: pd.DataFrame, taxonomy: Taxonomy = HAM10000) -> Figure:
    """Draw the share of women and men among the images of each diagnosis."""
    counts = np.stack([_per_diagnosis(frame[frame["sex"] == sex], taxonomy) for sex in _SEXES])
    names = _names(taxonomy, _per_diagnosis(frame, taxonomy))
    figure, axes = _diagnosis_rows(names, "Sex by diagnosis", "share of the images of the diagnosis")
    _stacked(axes, counts, _SEXES)
    return figure


def localizations(frame: pd.DataFrame, taxonomy: Taxonomy = HAM10000) -> Figure:
    """Draw the localizations of each diagnosis: count, and share of the diagnosis as colour."""
    counts = pd.crosstab(frame["localization"], frame["diagnosis"]).reindex(columns=list(taxonomy.codes), fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    cells = counts.to_numpy(dtype=np.int64)
    shares = cells / np.maximum(cells.sum(axis=0), 1)
    figure = canvas(height=5.0)
    axes = figure.add_subplot()
    colours = axes.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
    for (row, column), count in np.ndenumerate(cells):
        share = shares[row, column]
        ink = "white" if share > 0.6 * shares.max() else BLACK if count else GREY
        text = f"{count:,}\n{share:.0%}" if share >= 0.005 or not count else f"{count:,}\n< 1%"
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink, linespacing=0.95)
    axes.set_xticks(range(len(taxonomy)), [f"{code}\nn = {n:,}" for code, n in counts.sum(axis=0).items()])
    axes.set_yticks(range(len(counts)), [f"{site}, n = {n:,}" for site, n in counts.sum(axis=1).items()])
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("diagnosis", fontsize=9)
    axes.set_title("Localization by diagnosis: images, and share of the diagnosis", fontsize=10)
    bar = figure.colorbar(colours, ax=axes, shrink=0.8)
    bar.set_label("share of the diagnosis", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def images_per_lesion(frame: pd.DataFrame, taxonomy: Taxonomy = HAM10000) -> Figure:
    """Draw how many lesions of each diagnosis have one, two, three or more images."""
    lesions = frame.groupby("lesion_id").agg(diagnosis=("diagnosis", "first"), images=("image_id", "size"))
    sizes = lesions["images"].clip(upper=_MOST)
    counts = np.stack([_per_diagnosis(lesions[sizes == size], taxonomy) for size in range(1, _MOST + 1)])
    several = int((lesions["images"] > 1).sum())
    title = f"Images per lesion: {several:,} of {len(lesions):,} lesions have several"
    names = _names(taxonomy, _per_diagnosis(lesions, taxonomy))
    figure, axes = _diagnosis_rows(names, title, "share of the lesions of the diagnosis")
    _stacked(axes, counts, {"1 image": PALE, "2 images": SKY, "3 images": BLUE, f"{_MOST} or more": BLACK})
    return figure


def sample_sheet(
    frame: pd.DataFrame,
    image_of: Callable[[str], npt.NDArray[np.uint8]],
    *,
    samples_per_class: int,
    seed: int,
    taxonomy: Taxonomy = HAM10000,
) -> Figure:
    """Show images of each diagnosis, of as many different lesions.

    Args:
        frame: image_id, lesion_id, diagnosis.
        image_of: Returns the image (H, W, 3) of an image id.
        samples_per_class: Images of each diagnosis, 1 or more.
        seed: Seed of the draw.
        taxonomy: The diagnoses.
    """
    figure = canvas(height=0.2 + len(taxonomy) * 5.6 / samples_per_class)
    panels = figure.subplots(len(taxonomy), samples_per_class, squeeze=False)
    for diagnosis, row in zip(taxonomy.diagnoses, panels, strict=True):
        lesions = frame[frame["diagnosis"] == diagnosis.code].sort_values("image_id").drop_duplicates("lesion_id")
        chosen = lesions["image_id"].sample(min(samples_per_class, len(lesions)), random_state=seed)
        row[0].set_ylabel(fill(diagnosis.name, 16), fontsize=8)
        bare(*row)
        for axes, image_id in zip(row, chosen, strict=False):
            axes.imshow(image_of(image_id))
            axes.set_title(image_id, fontsize=5, pad=2)
    return figure


def skin_tone_histogram(tones: pd.DataFrame) -> Figure:
    """Draw the individual typology angles of pictures with the borders of their classes.

    Args:
        tones: As from `image_statistics.skin_tones`.
    """
    figure = canvas(height=2.8)
    axes, known = figure.add_subplot(), tones["ita"].dropna()
    axes.hist(known, bins=_BINS, range=(-90, 90), color=BLUE)
    for border in BORDERS:
        axes.axvline(border, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xlabel("individual typology angle of the border, degrees (dark to light)", fontsize=8)
    axes.set_ylabel("images", fontsize=8)
    axes.set_title(
        f"Lightness of the skin: {len(known):,} of {len(tones):,} images, others have a blue cast or no skin",
        fontsize=9,
    )
    plain(axes)
    return figure


def compare_populations(first: "Population", second: "Population", distances: Mapping[str, float | None]) -> Figure:
    """Draw the distributions of two populations, with the distance between them from 0 (equal) to 1.

    Args:
        first: One population.
        second: The other.
        distances: By property, as from `populations.compare_populations`; None where not available.
    """
    both = ((first, BLUE), (second, ORANGE))
    figure = canvas(height=6.4)
    panels = figure.subplots(3, 2).ravel()
    codes = list(dict.fromkeys([*first.diagnoses, *second.diagnoses]))
    places = np.arange(len(codes))
    for offset, (each, colour) in zip((-0.2, 0.2), both, strict=True):
        total = sum(each.diagnoses.values())
        shares = [each.diagnoses.get(code, 0) / total for code in codes]
        label = f"{each.name} ({total:,} images)"
        bars = panels[0].bar(places + offset, shares, width=0.38, color=colour, label=label)
        texts = [f"{share:.0%}" if share >= 0.005 or not share else "<1%" for share in shares]
        panels[0].bar_label(bars, texts, fontsize=5.5, padding=1)
    panels[0].set_xticks(places, codes)
    panels[0].margins(y=0.12)
    for axes, (name, xlabel) in zip(panels[1:], _MEASURES.items(), strict=True):
        _histograms(axes, {colour: each.measure(name) for each, colour in both})
        axes.set_xlabel(xlabel, fontsize=8)
    for axes, name in zip(panels, ("diagnoses", *_MEASURES), strict=True):
        distance = distances[name]
        text = "no distance available" if distance is None else f"distance {distance:.2f}"
        axes.set_title(f"{name}: {text}", fontsize=9)
        axes.set_ylabel("share of the images", fontsize=8)
    legend(figure, panels[0], "upper", ncols=2)
    plain(*panels)
    panels[0].grid(visible=False, axis="x")
    return figure


def _histograms(axes: Axes, values: Mapping[str, npt.NDArray[np.float64]]) -> None:
    """Draw the distributions of values by colour: the first filled, the second as a line."""
    known = np.concatenate(list(values.values()))
    if not len(known):
        axes.text(0.5, 0.5, "not available", transform=axes.transAxes, ha="center", fontsize=8, color=GREY)
        return
    low, high = float(known.min()), float(known.max())
    if high - low < 1e-6:  # a single value, as an aspect often is
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1).tolist()
    styles: tuple[dict[str, Any], ...] = ({"alpha": 0.45}, {"histtype": "step", "linewidth": 1.5})
    for (colour, own), style in zip(values.items(), styles, strict=True):
        if len(own):
            axes.hist(own, bins=edges, weights=np.full(len(own), 1 / len(own)), color=colour, **style)


def _per_diagnosis(rows: pd.DataFrame, taxonomy: Taxonomy) -> npt.NDArray[np.int64]:
    """Count the rows of each diagnosis, (K,), in class order."""
    counts = rows["diagnosis"].value_counts()
    return np.asarray([counts.get(code, 0) for code in taxonomy.codes], dtype=np.int64)


def _names(taxonomy: Taxonomy, counts: Sequence[int] | npt.NDArray[np.int64] | None = None) -> list[str]:
    """Name the diagnoses with their codes, and with their counts where given."""
    names = [fill(f"{each.name} ({each.code})", 28) for each in taxonomy.diagnoses]
    return names if counts is None else [f"{name}\nn = {n:,}" for name, n in zip(names, counts, strict=True)]


def _diagnosis_rows(labels: Sequence[str], title: str, xlabel: str) -> tuple[Figure, Axes]:
    """Make a figure with a row for each diagnosis, the first on top."""
    figure, axes = panel(height=max(4.0, 0.5 * len(labels)), title=title)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(xlabel, fontsize=9)
    label_rows(axes, labels)
    return figure, axes


def _stacked(axes: Axes, counts: npt.NDArray[np.int64], colours: Mapping[str, str]) -> None:
    """Draw counts (S, K) of S named values as shares of each diagnosis, stacked, labelled where there is room."""
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    starts = np.cumsum(shares, axis=0) - shares
    for start, share, (name, colour) in zip(starts, shares, colours.items(), strict=True):
        bars = axes.barh(range(len(share)), share, left=start, color=colour, label=name, height=0.7)
        ink = "white" if colour in (BLUE, BLACK) else BLACK
        labels = [f"{value:.0%}" if value >= 0.04 else "" for value in share]
        axes.bar_label(bars, labels, label_type="center", fontsize=7, color=ink)
    axes.set_xlim(0, 1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=len(colours), fontsize=8, frameon=False)
