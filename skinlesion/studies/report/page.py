"""The page, its figures, the model card and the checklists, rendered from templates. The page is self-contained."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy.typing as npt
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from skinlesion.data.image_io import decode, find_files, find_folders
from skinlesion.errors import DataError
from skinlesion.metrics.estimate import MARK_NOTE
from skinlesion.plots import report as plots
from skinlesion.plots.classification import confusion_matrix, precision_recall, roc, sample_sheet
from skinlesion.studies.report import tables
from skinlesion.studies.report.results import Results
from skinlesion.studies.report.sources import Sources
from skinlesion.studies.report.tables import decimal, percent
from skinlesion.taxonomy import CODES, DIAGNOSES, MALIGNANT, MELANOMA

HERE = Path(__file__).parent
UNANSWERED = "to be answered by the author"
CHECKLISTS = ("claim", "clear_derm", "tripod_ai")
_FILTERS = ("decimal", "percent", "ranged", "ranged_percent", "unbroken")
_HASHSALT = "skinlesion"  # makes equal figures equal byte by byte
_SAMPLE_SIZE = (150, 200)  # height and width of a photograph in pixels
_TARGETS = {MELANOMA: "melanoma", MALIGNANT: "malignant (mel, bcc, akiec)"}


@cache
def captions() -> Any:
    """Title, caption and alternative text of each figure by name."""
    return OmegaConf.load(HERE / "captions.yaml")


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report; title and caption are in captions.yaml."""

    name: str  # name of its file and key of its caption
    alt: str  # alternative text
    figure: Figure

    @property
    def title(self) -> str:
        """Title of the figure."""
        return str(captions()[self.name]["title"])

    @property
    def caption(self) -> str:
        """Explanation of the figure."""
        return str(captions()[self.name]["caption"])

    @property
    def uri(self) -> str:
        """The figure as an SVG data URI."""
        with matplotlib.rc_context({"svg.hashsalt": _HASHSALT, "svg.fonttype": "path"}):
            buffer = io.BytesIO()
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return data_uri(buffer, "svg+xml")


def data_uri(buffer: io.BytesIO, kind: str) -> str:
    """An image as a data URI, which a page contains instead of a file."""
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def draw_figures(sources: Sources, results: Results, *, bins: int) -> dict[str, ReportFigure]:
    """All figures that the results allow, by name."""
    found = (*_performance(sources, results), *_probabilities(sources, results, bins=bins), *_decisions(results))
    return {each.name: each for each in found}


def photographs(sources: Sources) -> str:
    """Sheet of sample photographs of the test part as a JPEG data URI.

    Raises:
        DataError: The images are missing.
    """
    data = next(iter(sources.configs.values()), {}).get("data") or {}
    if sources.root is None or not data.get("images"):
        raise DataError("samples=true: images not found; give metadata=FILE in the folder of the data set")
    files = find_files(find_folders(sources.root, data["images"])[0])

    def image_of(image_id: str) -> npt.NDArray[Any]:
        if image_id not in files:
            raise DataError(f"samples=true: no image file of {image_id} in {sources.root}")
        return decode(Path(files[image_id][0]), _SAMPLE_SIZE)

    buffer = io.BytesIO()
    figure = sample_sheet(sources.calibrated["test"], image_of)
    figure.savefig(buffer, format="jpeg", dpi=110, pil_kwargs={"quality": 85})
    return data_uri(buffer, "jpeg")


def _performance(sources: Sources, results: Results) -> Iterator[ReportFigure]:
    test, metrics, performance = sources.vote["test"], results.test, results.performance
    size = f"{results.counts['test'].images} test images of {results.counts['test'].lesions} lesions"
    alt = f"Confusion matrix of {size}; {percent(metrics['accuracy'].value)} are on the diagonal."
    yield ReportFigure("confusion", alt, confusion_matrix(test))
    alt = f"ROC curves of {size}; the mean area is {decimal(metrics['macro_auroc'].value)}."
    yield ReportFigure("roc", alt, roc(test))
    alt = f"Precision-recall curves of {size}; the mean average precision is {decimal(metrics['macro_ap'].value)}."
    yield ReportFigure("precision_recall", alt, precision_recall(test))
    if not performance.members:
        return
    rows = {
        f"{name}{' (in the ensemble)' if name in performance.chosen else ''}": parts["test"].metrics
        for name, parts in performance.members.items()
    }
    rows |= {"all members": performance.all_members["test"].metrics, "ensemble": metrics}
    alt = f"Accuracy, macro-F1 and balanced accuracy of {len(performance.members)} members and of the ensemble."
    figure = plots.models(rows, metrics=("accuracy", "macro_f1", "balanced_accuracy"))
    yield ReportFigure("members", alt, figure)


def _probabilities(sources: Sources, results: Results, *, bins: int) -> Iterator[ReportFigure]:
    calibration, rejection = results.calibration, results.rejection
    before, after = (decimal(parts["test"].ece_mass) for parts in (calibration.before, calibration.after))
    alt = f"Accuracy against confidence; the expected calibration error is {before} before and {after} after "
    figure = plots.before_and_after(sources.vote["test"], sources.calibrated["test"], bins=bins)
    yield ReportFigure("reliability", f"{alt}calibration.", figure)
    alt = "Error rate against the share of images kept; the area under the curve of the confidence is "
    figure = plots.risk_against_coverage(rejection.curves, rejection.areas)
    yield ReportFigure("risk_coverage", f"{alt}{decimal(rejection.areas['confidence'].value)}.", figure)


def _decisions(results: Results) -> Iterator[ReportFigure]:
    curves = {_TARGETS[name]: curve for name, curve in results.net_benefit.items() if curve is not None}
    if curves:
        alt = f"Net benefit against the threshold probability for {' and '.join(curves)}."
        yield ReportFigure("decision_curve", alt, plots.decision_curves(curves))
    if results.decisions.conformal:
        fitted, first = results.decisions.conformal[0]
        coverage, size = (decimal(first.overall.metrics[name].value) for name in ("coverage", "size"))
        nominal = 1 - fitted["alpha"]
        alt = f"The coverage of the sets is {coverage} (nominal: {nominal:.2f}); their mean size is {size}."
        yield ReportFigure("prediction_sets", alt, plots.sets_by_diagnosis(first, nominal=nominal))
    if results.subgroups:
        alt = f"Accuracy and balanced accuracy with intervals by {', '.join(results.subgroups)}, as in the table."
        yield ReportFigure("subgroups", alt, plots.groups(results.subgroups, results.test))


@dataclass(frozen=True)
class Item:
    """An item of a checklist."""

    number: str
    question: str
    answer: str
    is_open: bool  # whether the author has to answer


@dataclass(frozen=True)
class Checklist:
    """A reporting checklist."""

    title: str
    source: str  # reference
    items: list[Item]


def render_page(context: dict[str, Any]) -> str:
    """The report as one HTML page."""
    return _environment(escape=True).get_template("report.html.j2").render(context)


def render_card(context: dict[str, Any]) -> str:
    """The model card in Markdown."""
    return _environment(escape=False).get_template("model_card.md.j2").render(context)


def fill_checklists(context: dict[str, Any]) -> list[Checklist]:
    """The reporting checklists, answered where the answer follows from the results."""
    checklists = []
    for name in CHECKLISTS:
        content: Any = OmegaConf.to_container(OmegaConf.load(HERE / "checklists" / f"{name}.yaml"))
        items = []
        for each in content["items"]:
            answer = _environment(escape=False).from_string(each.get("answer") or "").render(context).strip()
            items.append(Item(str(each["item"]), each["asks"], answer or UNANSWERED, not answer))
        checklists.append(Checklist(content["title"], content["source"], items))
    return checklists


@cache
def _environment(*, escape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(tables, name) for name in _FILTERS}
    environment.globals |= {"codes": CODES, "diagnoses": DIAGNOSES, "unanswered": UNANSWERED, "mark_note": MARK_NOTE}
    return environment
