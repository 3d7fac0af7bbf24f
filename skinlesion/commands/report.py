"""`skinlesion report`: report on an ensemble as a page, a model card, checklists, tables and figures."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.studies import ReportConfig

if TYPE_CHECKING:
    from skinlesion.studies.report.sections import Section
    from skinlesion.studies.report.sources import Sources

log = logging.getLogger(__name__)


def run(config: ReportConfig) -> None:
    """Write report.html, model_card.md, report.json, tables/ and figures/, without a model and without images.

    Raises:
        SkinlesionError: The ensemble or a file beside it is invalid.
    """
    from skinlesion.files import write_json, write_text
    from skinlesion.metrics.estimate import BootstrapConfig
    from skinlesion.plots.style import save
    from skinlesion.studies.report.page import (
        draw_figures,
        fill_checklists,
        photographs,
        render_card,
        render_page,
        svg_pictures,
    )
    from skinlesion.studies.report.results import compute_results
    from skinlesion.studies.report.sources import describe_provenance, read_sources
    from skinlesion.studies.report.summary import summarize
    from skinlesion.studies.report.tables import make_tables

    sources = read_sources(Path(config.ensemble), metadata=None if config.metadata is None else Path(config.metadata))
    out = Path(config.out) if config.out else sources.path.parent / "report"
    sections, provenance = _sections(sources, config), describe_provenance(sources)
    results = compute_results(sources, BootstrapConfig.of(config), prevalence=config.prevalence, bins=config.bins)
    figures, tables = draw_figures(sources, results, bins=config.bins), make_tables(results)
    good, bad = summarize(results, provenance, sections)
    settings = {key: getattr(config, key) for key in ("resamples", "seed", "level", "interval", "bins")}
    context: dict[str, Any] = {
        "results": results,
        "taxonomy": results.taxonomy,
        "provenance": provenance,
        "strengths": good,
        "weaknesses": bad,
        "tables": tables,
        "figures": svg_pictures(figures, results),
        "sections": sections,
        "settings": settings,
        "author": config.author,
        "photographs": photographs(sources) if config.samples else None,
    }
    context["checklists"] = fill_checklists(context)
    for name, each in figures.items():
        save(each, out / "figures" / f"{name}.png")
    for table in (*tables.values(), *(each for section in sections for each in section.tables)):
        write_text(out / "tables" / f"{table.name}.csv", table.csv())
    write_json(out / "report.json", {**results.to_dict(), "material": provenance, "settings": settings})
    write_text(out / "model_card.md", render_card(context))
    write_text(out / "report.html", render_page(context))
    for sentence in (*bad[:2], *good[:1]):
        log.info("%s", sentence)
    log.info("Report: %s", out / "report.html")


def _sections(sources: "Sources", config: ReportConfig) -> "list[Section]":
    """Sections made from the results of other commands that are given or lie beside the ensemble."""
    from skinlesion.studies.report.robustness import robustness_section
    from skinlesion.studies.report.sections import (
        explanations_section,
        external_section,
        ledger_section,
        section_folder,
    )

    beside = sources.path.parent
    robustness = section_folder(config.robustness, beside / "robustness", key="robustness")
    explanations = section_folder(config.explanations, beside / "explanations", key="explanations")
    external = [Path(folder) for folder in config.external] or [
        folder for folder in [beside / "external"] if folder.is_dir()
    ]
    found = [
        None if robustness is None else robustness_section(robustness, taxonomy=sources.vote["test"].taxonomy),
        None if explanations is None else explanations_section(explanations, samples=config.samples),
        *(external_section(folder, sources.vote["test"]) for folder in external),
        ledger_section(sources.ledger),
    ]
    return [each for each in found if each is not None]
