"""Figures of robustness: text of one panel stays clear of the next."""

from types import SimpleNamespace
from typing import Any

from skinlesion.metrics.estimate import Estimate
from skinlesion.plots.robustness import curves
from skinlesion.studies.robustness.corruptions import CORRUPTIONS
from skinlesion.studies.robustness.study import CorruptionResult
from skinlesion.taxonomy import HAM10000

NAMES = ("balanced_accuracy", "macro_f1", "recall_mel", "novel")


def test_no_text_of_a_panel_is_nearer_to_another_panel() -> None:
    numbers = dict.fromkeys(NAMES, Estimate(0.5, 0.4, 0.6))
    found: Any = SimpleNamespace(
        undisturbed=numbers,
        taxonomy=HAM10000,
        corruptions={
            name: CorruptionResult(each.unit, each.neutral, {0.5: numbers}) for name, each in CORRUPTIONS.items()
        },
    )
    figure = curves(found)
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == len(CORRUPTIONS) - 1
    for upper, lower in zip(panels, panels[2:], strict=False):
        lowest = min(label.get_window_extent().y0 for label in upper.get_xticklabels() if label.get_text())
        assert lowest > lower.title.get_window_extent().y1, "labels end above the next title"
        assert not upper.get_xlabel(), "the unit stands in the title"
    assert any(label.get_text() == "original" for label in panels[0].get_xticklabels())
