"""Tables on stdout."""

import pytest

from skinlesion.commands.console import resampled, show_metrics, show_points
from skinlesion.metrics.decision import FlagMetrics
from skinlesion.metrics.estimate import MARK_NOTE, Estimate


def test_an_exact_interval_is_marked_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    exact = Estimate(1.0, 0.398, 1.0, method="clopper_pearson")
    usual = {"accuracy": Estimate(0.5, 0.4, 0.6), "macro_f1": Estimate(0.5, 0.4, 0.6)}
    show_metrics("All", [("exact", {**usual, "balanced_accuracy": exact})])
    printed = capsys.readouterr().out
    assert "1.000 [0.398, 1.000]†" in printed
    assert " ".join(MARK_NOTE.split()) in " ".join(printed.split())
    show_metrics("All", [("none", {**usual, "balanced_accuracy": Estimate(1.0)})])
    assert "1.000 [–]" in capsys.readouterr().out
    show_metrics("All", [("usual", {**usual, "balanced_accuracy": usual["accuracy"]})])
    assert "Clopper" not in capsys.readouterr().out


def test_points_with_the_same_flags_share_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    def found(tp: int) -> FlagMetrics:
        rates = dict.fromkeys(("sensitivity", "specificity", "ppv", "npv"), Estimate(tp / 4, 0.1, 1.0))
        return FlagMetrics({"tp": tp, "fp": 1, "fn": 4 - tp, "tn": 9}, rates)

    points = [("mel", 0.8, found(3)), ("mel", 0.85, found(3)), ("mel", 0.9, found(4)), ("malignant", 0.8, found(4))]
    show_points("Points", [*points, ("malignant", 0.9, None)])
    rows = [line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert rows == ["mel, 80% to 85% wanted", "mel, 90% wanted", "malignant, 80% wanted"]


@pytest.mark.parametrize(
    ("groups", "said"),
    [(None, "lesions"), ("abb", "lesions"), ("aaa", "groups of lesions"), (("P1", "P1", "P2"), "patients"),
     (("a", "lesion b", "lesion b"), "lesions")],
)  # fmt: skip
def test_what_intervals_resample_is_said(groups: tuple[str, ...] | None, said: str) -> None:
    assert resampled(("a", "b", "b"), groups) == said
