"""Figures that set models or groups of images beside each other: a number with its interval, a row each."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from skinlesion.metrics.estimate import Estimates
from skinlesion.metrics.summary import Subgroups
from skinlesion.plots.style import BLACK, canvas, intervals

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "macro_auroc": "macro AUROC",
}


def models(rows: Mapping[str, Estimates], *, metrics: tuple[str, ...]) -> Figure:
    """Draw each model's numbers with their intervals, a panel a metric.

    Args:
        rows: By name of the model, as from `summary.metrics_with_ci`.
        metrics: Names of those to draw.
    """
    figure = canvas(height=0.9 + 0.3 * len(rows))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        intervals(axes, list(rows), [numbers[metric] for numbers in rows.values()])
        axes.set_xlabel(TITLES.get(metric, metric))
    return figure


def groups(
    found: Subgroups,
    overall: Estimates,
    *,
    metrics: tuple[str, ...] = ("accuracy", "balanced_accuracy"),
) -> Figure:
    """Draw each group's numbers with their intervals, beside those of all images (dotted).

    Args:
        found: By fact, then group, as from `subgroups.subgroups`.
        overall: The metrics of all images.
        metrics: Names of those to draw, a panel each.
    """
    rows = [(fact, name, each) for fact, parts in found.items() for name, each in parts.items()]
    labels = [f"{fact}: {name} ({each.lesions}{'*' if each.note else ''})" for fact, name, each in rows]
    figure = canvas(height=0.9 + 0.24 * len(rows))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        intervals(axes, labels, [each.metrics[metric] for _, _, each in rows])
        axes.set(xlabel=TITLES.get(metric, metric), xlim=(-0.02, 1.02))
        axes.tick_params(axis="y", labelsize=7)
        if (value := overall[metric].value) is not None:
            axes.axvline(value, color=BLACK, linestyle=":", linewidth=1)
        for place in range(1, len(rows)):
            if rows[place][0] != rows[place - 1][0]:
                axes.axhline(place - 0.5, color=BLACK, linewidth=0.5)
    return figure
