"""The page, the model card and the checklists, rendered from templates. The page is self-contained."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from skinlesion.studies.report import tables
from skinlesion.taxonomy import CODES, DIAGNOSES

HERE = Path(__file__).parent
UNANSWERED = "to be answered by the author"
CHECKLISTS = ("claim", "clear_derm", "tripod_ai")
_FILTERS = ("decimal", "percent", "ranged", "ranged_percent", "unbroken")


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
    return [_fill(name, context) for name in CHECKLISTS]


def _fill(name: str, context: dict[str, Any]) -> Checklist:
    content: Any = OmegaConf.to_container(OmegaConf.load(HERE / "checklists" / f"{name}.yaml"))
    items = []
    for each in content["items"]:
        answer = _environment(escape=False).from_string(each.get("answer") or "").render(context).strip()
        items.append(Item(str(each["item"]), each["asks"], answer or UNANSWERED, not answer))
    return Checklist(content["title"], content["source"], items)


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
    environment.globals |= {"codes": CODES, "diagnoses": DIAGNOSES, "unanswered": UNANSWERED}
    return environment
