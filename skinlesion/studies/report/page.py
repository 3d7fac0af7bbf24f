"""The page, the model card and the checklists, filled from templates. A page needs nothing but itself."""

from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from skinlesion.studies.report import formatting as words
from skinlesion.taxonomy import CODES, DIAGNOSES

HERE = Path(__file__).parent
UNANSWERED = "to be answered by the author"
LISTS = ("claim", "clear_derm", "tripod_ai")
_FORMS = {
    "decimal": words.decimal,
    "percent": words.percent,
    "ranged": words.ranged,
    "unbroken": words.unbroken,
    "ranged_percent": words.ranged_percent,
}


def page(context: dict[str, Any]) -> str:
    """The report as one HTML page."""
    return _environment(escape=True).get_template("report.html.j2").render(_known(context))


def card(context: dict[str, Any]) -> str:
    """The model card in Markdown."""
    return _environment(escape=False).get_template("model_card.md.j2").render(_known(context))


def checklists(context: dict[str, Any]) -> list[dict[str, Any]]:
    """The reporting checklists, filled where the answer follows from the run.

    Returns:
        For each list `title`, `source` (reference) and `items`: `item` (number), `asks`, `answer`, and `open`:
        whether the author has to answer it.
    """
    return [_filled(name, _known(context)) for name in LISTS]


def _filled(name: str, context: dict[str, Any]) -> dict[str, Any]:
    listed: Any = OmegaConf.to_container(OmegaConf.load(HERE / "checklists" / f"{name}.yaml"))
    environment = _environment(escape=False)
    items = []
    for each in listed["items"]:
        answer = environment.from_string(each.get("answer") or "").render(context).strip()
        items.append(
            {"item": str(each["item"]), "asks": each["asks"], "answer": answer or UNANSWERED, "open": not answer}
        )
    return {"title": listed["title"], "source": listed["source"], "items": items}


def _environment(*, escape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FORMS
    return environment


def _known(context: dict[str, Any]) -> dict[str, Any]:
    """What every template may name beside what it is given."""
    return {"codes": CODES, "diagnoses": DIAGNOSES, "unanswered": UNANSWERED, **context}
