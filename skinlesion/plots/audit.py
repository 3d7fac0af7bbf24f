"""Figures of a data set: diagnoses, ages, sexes, localizations, images per lesion, and sample images."""

from collections.abc import Callable, Sequence
from textwrap import fill

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skinlesion.plots.style import BLACK, BLUE, GREY, ORANGE, PALE, SKY, VERMILLION, canvas, plain
from skinlesion.taxonomy import CODES, DIAGNOSES

_SEXES = {"female": SKY, "male": ORANGE, "unknown": GREY}
_MOST = 4  # images of a lesion; lesions with more are drawn together with these


def diagnoses(frame: pd.DataFrame) -> Figure:
    """Draw how many images and lesions each diagnosis has."""
    images = _per_diagnosis(frame)
    lesions = _per_diagnosis(frame.drop_duplicates("lesion_id"))
    figure, axes = _diagnosis_rows(_names())
    rows = np.arange(len(CODES))
    for offset, counts, colour, name in ((-0.2, images, BLUE, "images"), (0.2, lesions, SKY, "lesions")):
        bars = axes.barh(rows + offset, counts, height=0.38, color=colour, label=name)
        total = max(sum(counts), 1)
        axes.bar_label(bars, [f"{n:,} ({n / total:.1%})" for n in counts], padding=3, fontsize=7)
    axes.margins(x=0.16)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("count (share of all)", fontsize=9)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    axes.set_title(f"{len(frame):,} images of {frame['lesion_id'].nunique():,} lesions", fontsize=10)
    return figure


def ages(frame: pd.DataFrame) -> Figure:
    """Draw the patients' ages by diagnosis: box from first to third quartile, whiskers from 5 % to 95 %."""
    known = [frame.loc[frame["diagnosis"] == code, "age"].dropna() for code in CODES]
    absent = _per_diagnosis(frame[frame["age"].isna()])
    labels = [
        f"{name}\nn = {len(values):,}" + (f", {none} without age" if none else "")
        for name, values, none in zip(_names(), known, absent, strict=True)
    ]
    figure, axes = _diagnosis_rows(labels)
    drawn = [row for row, values in enumerate(known) if len(values)]
    axes.boxplot(
        [known[row].to_numpy() for row in drawn],
        positions=drawn,
        orientation="horizontal",
        widths=0.6,
        whis=(5, 95),
        manage_ticks=False,
        patch_artist=True,
        boxprops={"facecolor": SKY, "edgecolor": BLACK},
        medianprops={"color": VERMILLION, "linewidth": 2},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": GREY},
    )
    axes.set_xlabel("age of the patient, years", fontsize=9)
    axes.set_title("Age by diagnosis (images): median, quartiles, 5 % and 95 %", fontsize=10)
    return figure


def sexes(frame: pd.DataFrame) -> Figure:
    """Draw the share of women and men among the images of each diagnosis."""
    counts = np.stack([_per_diagnosis(frame[frame["sex"] == sex]) for sex in _SEXES])
    figure, axes = _diagnosis_rows(_names(_per_diagnosis(frame)))
    _stacked(axes, counts, names=list(_SEXES), colours=list(_SEXES.values()))
    axes.set_xlabel("share of the images of the diagnosis", fontsize=9)
    axes.set_title("Sex by diagnosis", fontsize=10)
    return figure


def localizations(frame: pd.DataFrame) -> Figure:
    """Draw the localizations of each diagnosis: count, and share of the diagnosis as colour."""
    counts = pd.crosstab(frame["localization"], frame["diagnosis"]).reindex(columns=list(CODES), fill_value=0)
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
    axes.set_xticks(range(len(CODES)), [f"{code}\nn = {n:,}" for code, n in counts.sum(axis=0).items()])
    axes.set_yticks(range(len(counts)), [f"{site}, n = {n:,}" for site, n in counts.sum(axis=1).items()])
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("diagnosis", fontsize=9)
    axes.set_title("Localization by diagnosis: images, and share of the diagnosis", fontsize=10)
    bar = figure.colorbar(colours, ax=axes, shrink=0.8)
    bar.set_label("share of the diagnosis", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def images_per_lesion(frame: pd.DataFrame) -> Figure:
    """Draw how many lesions of each diagnosis have one, two, three or more images."""
    lesions = frame.groupby("lesion_id").agg(diagnosis=("diagnosis", "first"), images=("image_id", "size"))
    sizes = lesions["images"].clip(upper=_MOST)
    counts = np.stack([_per_diagnosis(lesions[sizes == size]) for size in range(1, _MOST + 1)])
    names = ["1 image", *(f"{size} images" for size in range(2, _MOST)), f"{_MOST} or more"]
    figure, axes = _diagnosis_rows(_names(_per_diagnosis(lesions)))
    _stacked(axes, counts, names=names, colours=[PALE, SKY, BLUE, BLACK])
    axes.set_xlabel("share of the lesions of the diagnosis", fontsize=9)
    several = int((lesions["images"] > 1).sum())
    axes.set_title(f"Images per lesion: {several:,} of {len(lesions):,} lesions have several", fontsize=10)
    return figure


def sample_sheet(
    frame: pd.DataFrame, image_of: Callable[[str], npt.NDArray[np.uint8]], *, samples_per_class: int, seed: int
) -> Figure:
    """Show images of each diagnosis, of as many different lesions.

    Args:
        frame: image_id, lesion_id, diagnosis.
        image_of: Gives the image (H, W, 3) of an image id.
        samples_per_class: Images of each diagnosis, 1 or more.
        seed: Of the draw.
    """
    figure = canvas(height=0.2 + len(CODES) * 5.6 / samples_per_class)
    panels = figure.subplots(len(CODES), samples_per_class, squeeze=False)
    for diagnosis, row in zip(DIAGNOSES, panels, strict=True):
        lesions = frame[frame["diagnosis"] == diagnosis.code].sort_values("image_id").drop_duplicates("lesion_id")
        chosen = lesions["image_id"].sample(min(samples_per_class, len(lesions)), random_state=seed)
        row[0].set_ylabel(fill(diagnosis.name, 16), fontsize=8)
        for axes in row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for axes, image_id in zip(row, chosen, strict=False):
            axes.imshow(image_of(image_id))
            axes.set_title(image_id, fontsize=5, pad=2)
    return figure


def _per_diagnosis(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Count the rows of each diagnosis, (7,), in class order."""
    counts = rows["diagnosis"].value_counts()
    return np.asarray([counts.get(code, 0) for code in CODES], dtype=np.int64)


def _names(counts: Sequence[int] | npt.NDArray[np.int64] | None = None) -> list[str]:
    """Name the diagnoses with their codes, and with their counts where given."""
    names = [fill(f"{each.name} ({each.code})", 28) for each in DIAGNOSES]
    return names if counts is None else [f"{name}\nn = {n:,}" for name, n in zip(names, counts, strict=True)]


def _diagnosis_rows(labels: Sequence[str]) -> tuple[Figure, Axes]:
    """Make a figure with a row for each diagnosis, the first on top."""
    figure = canvas(height=4.0)
    axes = figure.add_subplot()
    plain(axes)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(CODES)), labels)
    axes.set_ylim(len(CODES) - 0.5, -0.5)
    return figure, axes


def _stacked(axes: Axes, counts: npt.NDArray[np.int64], *, names: Sequence[str], colours: Sequence[str]) -> None:
    """Draw counts (S, 7) as shares of each diagnosis, one after the other, labelled where there is room."""
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    starts = np.cumsum(shares, axis=0) - shares
    for start, share, name, colour in zip(starts, shares, names, colours, strict=True):
        bars = axes.barh(range(len(CODES)), share, left=start, color=colour, label=name, height=0.7)
        ink = "white" if colour in (BLUE, BLACK) else BLACK
        labels = [f"{value:.0%}" if value >= 0.04 else "" for value in share]
        axes.bar_label(bars, labels, label_type="center", fontsize=7, color=ink)
    axes.set_xlim(0, 1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=len(names), fontsize=8, frameon=False)
