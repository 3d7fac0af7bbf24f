"""The figures of a report, each with a title, a caption for readers and a text for those who cannot see it."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from skinlesion.inference.posthoc_fit import with_calibration
from skinlesion.inference.predictions import Predictions
from skinlesion.plots.classification import confusion_matrix, precision_recall, roc
from skinlesion.plots.decision import (
    before_and_after,
    decision_curves,
    risk_against_coverage,
    sets_by_diagnosis,
)
from skinlesion.plots.groups import groups, models
from skinlesion.studies.report.formatting import decimal, percent
from skinlesion.studies.report.results import Rejection, Results
from skinlesion.studies.report.sources import Sources
from skinlesion.taxonomy import MALIGNANT

_HASHSALT = "skinlesion"  # the same figure gives the same bytes


@cache
def _captions() -> Any:
    return OmegaConf.load(Path(__file__).parent / "captions.yaml")


@dataclass(frozen=True)
class Drawing:
    """A figure with its words."""

    name: str  # of its file
    alt: str  # what it shows, for those who cannot see it
    figure: Figure

    @property
    def title(self) -> str:
        """Stands above the figure."""
        return str(_captions()[self.name]["title"])

    @property
    def caption(self) -> str:
        """How to read it."""
        return str(_captions()[self.name]["caption"])

    def data_uri(self) -> str:
        """The figure as SVG inside a page."""
        with matplotlib.rc_context({"svg.hashsalt": _HASHSALT, "svg.fonttype": "path"}):
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def draw(sources: Sources, results: Results, *, bins: int) -> dict[str, Drawing]:
    """All figures that the results allow, by name."""
    test = sources.tables["test"]
    scaled = with_calibration(test, sources.about.get("calibration"))
    found = [
        *_performance(test, results),
        _reliability(test, scaled, results, bins=bins),
        _rejection(results.rejection),
        *_decisions(results),
        *_groups(results),
    ]
    return {each.name: each for each in found}


def _performance(test: Predictions, results: Results) -> Iterator[Drawing]:
    performance, counts = results.performance, results.counts["test"]
    metrics = performance.vote["test"].metrics
    size = f"{counts['images']} test images of {counts['lesions']} lesions"
    right = percent(metrics["accuracy"].value)
    yield Drawing("confusion", f"Confusion matrix of {size}; {right} lie on the diagonal.", confusion_matrix(test))
    areas = {name: decimal(metrics[f"macro_{name}"].value) for name in ("auroc", "ap")}
    yield Drawing("roc", f"ROC curves of {size}; the mean area is {areas['auroc']}.", roc(test))
    alt = f"Precision-recall curves of {size}; the mean average precision is {areas['ap']}."
    yield Drawing("precision_recall", alt, precision_recall(test))
    if not performance.members:
        return
    rows = {
        name + (" (votes)" if name in performance.chosen else ""): each["test"].metrics
        for name, each in performance.members.items()
    }
    rows["all members"] = performance.all_members["test"].metrics
    rows["the ensemble"] = metrics
    alt = f"Accuracy, macro-F1 and balanced accuracy of {len(rows) - 2} members and of their votes."
    yield Drawing("members", alt, models(rows, metrics=("accuracy", "macro_f1", "balanced_accuracy")))


def _reliability(test: Predictions, scaled: Predictions, results: Results, *, bins: int) -> Drawing:
    before, after = (decimal(results.calibration["test"][kind]["ece_mass"]) for kind in ("before", "after"))
    alt = f"Accuracy against confidence; the expected calibration error is {before} as voted, {after} calibrated."
    return Drawing("reliability", alt, before_and_after(test, scaled, bins=bins))


def _rejection(found: Rejection) -> Drawing:
    area = decimal(found.areas["confidence"].value)
    alt = f"Share of wrong predictions against the share of images kept; the area by confidence is {area}."
    return Drawing("risk_coverage", alt, risk_against_coverage(found.curves, found.areas))


def _decisions(results: Results) -> Iterator[Drawing]:
    benefit = {name: frame for name, frame in results.net_benefit.items() if frame is not None}
    if benefit:
        names = {"mel": "melanoma", MALIGNANT: "malignant (mel, bcc, akiec)"}
        alt = f"Net benefit against the threshold probability for {' and '.join(names[name] for name in benefit)}."
        yield Drawing("decision_curve", alt, decision_curves({names[name]: each for name, each in benefit.items()}))
    if results.decisions.conformal:
        fitted, coverage = results.decisions.conformal[0]
        wanted = 1 - fitted["alpha"]
        held, size = (decimal(coverage.overall.metrics[name].value) for name in ("coverage", "size"))
        alt = f"Coverage of the sets is {held}, wanted {wanted:.2f}; their mean size is {size}."
        yield Drawing("prediction_sets", alt, sets_by_diagnosis(coverage, wanted=wanted))


def _groups(results: Results) -> Iterator[Drawing]:
    found = results.subgroups
    if found:
        alt = f"Accuracy and balanced accuracy with intervals by {', '.join(found)}; the numbers stand in the table."
        yield Drawing("subgroups", alt, groups(found, results.performance.vote["test"].metrics))
