"""`skinlesion report`: all that is known of an ensemble, as one page, a model card, checklists, tables and figures."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.studies import ReportConfig

if TYPE_CHECKING:
    from skinlesion.studies.report.sections import Extra
    from skinlesion.studies.report.sources import Sources

log = logging.getLogger(__name__)


def run(config: ReportConfig) -> None:
    """Write report.html, model_card.md, report.json, tables/ and figures/. Needs neither a model nor images.

    Raises:
        SkinlesionError: The ensemble or what lies beside it cannot be used.
    """
    from skinlesion.files import write_json, write_text
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.plots.style import save
    from skinlesion.studies.report.figures import draw
    from skinlesion.studies.report.page import card, checklists, page
    from skinlesion.studies.report.provenance import material
    from skinlesion.studies.report.results import gather
    from skinlesion.studies.report.sources import read_sources
    from skinlesion.studies.report.summary import failures, strengths
    from skinlesion.studies.report.tables import tables

    sources = read_sources(Path(config.ensemble), metadata=None if config.metadata is None else Path(config.metadata))
    out = Path(config.out) if config.out else sources.path.parent / "report"
    extras = _extras(sources, config)
    settings = {key: getattr(config, key) for key in ("resamples", "seed", "level", "interval", "bins")}
    results = gather(sources, prevalence=asdict(config.prevalence), bins=config.bins, config=BootstrapConfig.of(config))
    evidence = results.to_dict()
    drawings = draw(sources, results, bins=config.bins)
    listed, origin = tables(evidence), material(sources)
    context: dict[str, Any] = {
        "evidence": evidence,
        "material": origin,
        "can": [*strengths(evidence), *(told for extra in extras for told in extra.can)],
        "fails": failures(evidence, origin, [told for extra in extras for told in extra.fails]),
        "tables": listed,
        "drawings": drawings,
        "extras": extras,
        "settings": settings,
        "author": config.author,
        "sheet": _sheet(sources) if config.samples else None,
    }
    context["checklists"] = checklists(context)
    for name, drawing in drawings.items():
        save(drawing.figure, out / "figures" / f"{name}.png")
    for table in (*listed.values(), *(each for extra in extras for each in extra.tables)):
        write_text(out / "tables" / f"{table.name}.csv", table.csv())
    write_json(out / "report.json", {**evidence, "material": origin, "settings": context["settings"]})
    write_text(out / "model_card.md", card(context))
    write_text(out / "report.html", page(context))
    for sentence in (*context["can"][:2], *context["fails"][:1]):
        log.info("%s", sentence)
    log.info("Report: %s", out / "report.html")


def _extras(sources: "Sources", config: ReportConfig) -> "list[Extra]":
    from skinlesion.studies.report.explanations import explanations
    from skinlesion.studies.report.external import external
    from skinlesion.studies.report.robustness import robustness

    beside = sources.path.parent
    found = [
        robustness(Path(config.robustness or beside / "robustness"), given=config.robustness is not None),
        explanations(
            Path(config.explanations or beside / "explanations"),
            given=config.explanations is not None,
            samples=config.samples,
        ),
        *(external(folder, sources.tables["test"]) for folder in _external(beside, config)),
    ]
    return [each for each in found if each is not None]


def _external(beside: Path, config: ReportConfig) -> list[Path]:
    if config.external:
        return [Path(folder) for folder in config.external]
    return [folder for folder in [beside / "external"] if folder.is_dir()]


def _sheet(sources: "Sources") -> str:
    """Photographs of the most, the median and the least sure image of each diagnosis, inside the page."""
    from skinlesion.studies.report.photographs import sheet

    return sheet(sources)
