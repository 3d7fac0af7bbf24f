"""Draw the pictures of the documentation from the published predictions tables: `make pictures`."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import HEADLINE_NAMES
from skinlesion.metrics.compare import metric_differences
from skinlesion.metrics.estimate import BootstrapConfig, Estimate
from skinlesion.metrics.summary import metrics_with_ci
from skinlesion.plots.style import BLUE, GREY, VERMILLION, canvas, plain, save

DOCS = Path(__file__).parent
TABLES = {"first snapshot": "lite0", "second snapshot": "lite0_restart", "vote of both": "vote"}


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


def main() -> None:
    """Draw each picture."""
    tables = {name: Predictions.read(DOCS / "predictions" / f"{file}.csv.gz") for name, file in TABLES.items()}
    save(vote_gain(tables, BootstrapConfig(resamples=1000)), DOCS / "images" / "vote_gain.png")


if __name__ == "__main__":
    main()
