"""Draw the pictures of the documentation from what is published: `make pictures`.

The report's first page needs Chromium (Debian: apt-get install chromium); without it that picture stays as it is.
"""

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from overview import overview
from PIL import Image

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import HEADLINE_NAMES
from skinlesion.metrics.compare import metric_differences
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.metrics.summary import metrics_with_ci
from skinlesion.plots.style import BLUE, GREY, ORANGE, PALE, VERMILLION, canvas, plain, save

DOCS = Path(__file__).parent
TABLES = {"first snapshot": "lite0", "second snapshot": "lite0_restart", "vote of both": "vote"}
CURVES = {"train/loss": "training loss", "val/loss": "validation loss", "val/macro_f1": "validation macro-F1"}


def vote_gain(tables: Mapping[str, Predictions], config: BootstrapConfig) -> Figure:
    """Members and their vote, the last of the tables, with intervals; and the gain over each, paired by lesion."""
    *members, vote = tables
    measured = {name: metrics_with_ci(table, config, bins=10) for name, table in tables.items()}
    gains = {name: metric_differences(tables[vote], tables[name], config, bins=10) for name in members}
    figure = canvas(height=3.2)
    for row, found in enumerate((measured, {f"vote − {name}": gain for name, gain in gains.items()})):
        for column, (metric, title) in enumerate(HEADLINE_NAMES.items()):
            axes = figure.add_subplot(2, len(HEADLINE_NAMES), row * len(HEADLINE_NAMES) + column + 1)
            _rows(axes, {name: each[metric] for name, each in found.items()}, labelled=column == 0)
            axes.set_title(title if row == 0 else "", fontsize=9)
            if row:
                axes.axvline(0, color=GREY, linewidth=1)
    return figure


def _rows(axes: mpl.axes.Axes, found: Mapping[str, Estimate], *, labelled: bool) -> None:
    """An estimate a row, the last in another colour."""
    for height, each in enumerate(found.values()):
        colour = VERMILLION if height == len(found) - 1 and len(found) > 2 else BLUE
        axes.plot([each.low, each.high], [height, height], color=colour, linewidth=2)
        axes.plot([each.value], [height], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(found)), found if labelled else [""] * len(found))
    axes.set_ylim(len(found) - 0.5, -0.5)
    plain(axes)


def learning_curves(epochs: pd.DataFrame) -> Figure:
    """Losses and macro-F1 of both snapshots: a thin line a fold, a thick one their mean.

    Args:
        epochs: A row an epoch of a member of a fold: member, fold, epoch and the columns of `CURVES`.
    """
    figure, begins = canvas(height=2.6), 0
    panels = figure.subplots(1, len(CURVES))
    plain(*panels)
    for (name, member), colour in zip(list(TABLES.items())[:-1], (BLUE, ORANGE), strict=True):
        rows = epochs[epochs["member"] == member]
        for axes, column in zip(panels, CURVES, strict=True):
            table = rows.pivot_table(column, index="epoch", columns="fold")
            at = table.index + begins + 1
            axes.plot(at, table, color=colour, linewidth=0.7, alpha=0.5)
            axes.plot(at, table.mean(axis=1), color=colour, linewidth=2.2, label=name)
            if begins:
                axes.axvspan(begins + 0.5, at.max() + 0.5, color=PALE, zorder=0)
        begins += rows["epoch"].max() + 1
    for axes, title in zip(panels, CURVES.values(), strict=True):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
    panels[-1].legend(fontsize=8, loc="lower right")
    return figure


def first_page(report: Path, picture: Path) -> bool:
    """Take the first page of a report as a picture, A4 upright; False where there is no Chromium."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return False
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1040, "height": 1471})
        page.goto(report.as_uri())
        shot = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    small = shot.convert("RGB").resize((780, 1103), Image.Resampling.LANCZOS)
    small.quantize(16, dither=Image.Dither.NONE).save(picture, optimize=True)
    return True


def main() -> None:
    """Draw each picture."""
    images = DOCS / "images"
    (images / "overview.svg").write_text(overview(DOCS.parent / "data" / "bundle"), encoding="utf-8")
    tables = {name: Predictions.read(DOCS / "predictions" / f"{file}.csv.gz") for name, file in TABLES.items()}
    save(vote_gain(tables, BootstrapConfig(resamples=1000)), images / "vote_gain.png")
    save(learning_curves(pd.read_csv(DOCS / "predictions" / "epochs.csv")), images / "learning_curves.png")
    if not first_page(DOCS / "report" / "report.html", images / "report.png"):
        print("images/report.png stays as it is: no Chromium (Debian: apt-get install chromium, or CHROMIUM=/its/path)")


if __name__ == "__main__":
    main()
