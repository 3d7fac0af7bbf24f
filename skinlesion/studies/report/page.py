"""The page, its figures, the model card and the checklists, rendered from templates. The page is self-contained."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import jinja2
import matplotlib
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from skinlesion.data.image_files import find_files, find_folders
from skinlesion.data.image_io import decode
from skinlesion.errors import DataError
from skinlesion.files import escape_markdown
from skinlesion.metrics.estimate import MARK_NOTE
from skinlesion.metrics.summary import ALL
from skinlesion.plots import report as plots
from skinlesion.plots.classification import confusion_matrix, precision_recall, roc, sample_sheet
from skinlesion.studies.report import formats
from skinlesion.studies.report.results import Results
from skinlesion.studies.report.sources import Sources
from skinlesion.taxonomy import HAM10000

HERE = Path(__file__).parent
UNANSWERED = "to be answered by the author"
CHECKLISTS = ("claim", "clear_derm", "tripod_ai")
_FILTERS = ("decimal", "percent", "ranged", "ranged_percent", "unbroken", "listed", "change")
_SAMPLE_SIZE = (150, 200)  # height and width of a photograph in pixels


@cache
def captions() -> dict[str, dict[str, str]]:
    """Title, caption and alternative text (a template) of each figure by name."""
    return cast(dict[str, dict[str, str]], OmegaConf.to_container(OmegaConf.load(HERE / "captions.yaml")))


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    name: str  # key of its title, caption and alternative text
    uri: str  # the picture as a data URI
    words: Mapping[str, Any] = field(default_factory=dict)  # for the alternative text

    @property
    def title(self) -> str:
        """Title of the figure."""
        return captions()[self.name]["title"] if self.name in captions() else self.name

    @property
    def caption(self) -> str:
        """Explanation of the figure."""
        return captions()[self.name]["caption"] if self.name in captions() else ""

    @property
    def alt(self) -> str:
        """Alternative text."""
        text = captions()[self.name]["alt"] if self.name in captions() else f"Figure {self.name}."
        return environment(escape=False).from_string(text).render(self.words)


def data_uri(buffer: io.BytesIO, kind: str) -> str:
    """An image as a data URI, which a page contains instead of a file."""
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def svg_pictures(figures: Mapping[str, Figure], results: Results) -> dict[str, Picture]:
    """Figures of the results as SVG pictures by name, equal byte by byte where the figures are."""
    found = {}
    targets = [
        results.taxonomy.title(name) for name, curve in results.strata[ALL].net_benefit.items() if curve is not None
    ]
    words = {"results": results, "targets": targets}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "skinlesion", "svg.fonttype": "path"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        found[name] = Picture(name, data_uri(buffer, "svg+xml"), words)
    return found


def draw_figures(sources: Sources, results: Results, *, bins: int) -> dict[str, Figure]:
    """All figures that the results allow, by name."""
    test, performance, rejection = sources.vote["test"], results.performance, results.rejection
    found = {"confusion": confusion_matrix(test), "roc": roc(test), "precision_recall": precision_recall(test)}
    if performance.members:
        rows = {
            f"{name}{' (in the ensemble)' if name in performance.chosen else ''}": parts["test"].metrics
            for name, parts in performance.members.items()
        }
        rows |= {"all members": performance.all_members["test"].metrics, "ensemble": results.test}
        found["members"] = plots.models(rows, metrics=("accuracy", "macro_f1", "balanced_accuracy"))
    found["reliability"] = plots.before_and_after(test, sources.calibrated["test"], bins=bins)
    found["risk_coverage"] = plots.risk_against_coverage(rejection.curves, rejection.areas)
    curves = {
        name: {results.taxonomy.title(target): curve for target, curve in each.net_benefit.items() if curve is not None}
        for name, each in results.strata.items()
    }
    if curves[ALL]:
        found["decision_curve"] = plots.decision_curves({name: each for name, each in curves.items() if each})
    if results.decisions.conformal:
        fitted, first = results.decisions.conformal[0]
        found["prediction_sets"] = plots.sets_by_diagnosis(first, nominal=1 - fitted["alpha"])
    if results.subgroups:
        found["subgroups"] = plots.groups(results.subgroups, results.test)
    return found


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
    return environment(escape=True).get_template("report.html.j2").render(context)


def render_card(context: dict[str, Any]) -> str:
    """The model card in Markdown; what the template fills in is shown as it is."""

    def shown(value: Any) -> Any:
        return Markup(escape_markdown(value)) if type(value) is str else value

    card = environment(escape=False).overlay(autoescape=True, finalize=shown)
    return card.get_template("model_card.md.j2").render(context)


def fill_checklists(context: dict[str, Any]) -> list[Checklist]:
    """The reporting checklists, answered where the answer follows from the results."""
    checklists = []
    for name in CHECKLISTS:
        content: Any = OmegaConf.to_container(OmegaConf.load(HERE / "checklists" / f"{name}.yaml"))
        items = []
        for each in content["items"]:
            template = each.get("answer") or ""
            if "HAM10000" in template and context["taxonomy"].name != HAM10000.name:
                template = ""  # says what is true of that data set alone
            answer = environment(escape=False).from_string(template).render(context).strip()
            items.append(Item(str(each["item"]), each["asks"], answer or UNANSWERED, not answer))
        checklists.append(Checklist(content["title"], content["source"], items))
    return checklists


@cache
def environment(*, escape: bool) -> jinja2.Environment:
    """The templates, with the formats of numbers as filters."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(formats, name) for name in _FILTERS}
    environment.globals |= {"unanswered": UNANSWERED, "mark_note": MARK_NOTE}
    return environment
