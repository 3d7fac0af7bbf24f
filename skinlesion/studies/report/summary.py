"""Summary of a report: sentences about strengths and weaknesses, derived from the results by a template."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skinlesion.metrics.decision import FlagMetrics
from skinlesion.metrics.estimate import FEW_LESIONS, Estimate
from skinlesion.metrics.summary import ALL
from skinlesion.plots.report import FACTS
from skinlesion.studies.report.formats import ranged_percent
from skinlesion.studies.report.page import environment
from skinlesion.studies.report.results import Results
from skinlesion.studies.report.sections import Section
from skinlesion.studies.report.sources import Provenance
from skinlesion.studies.report.tables import option_of

LIMITS = {
    "strong": 0.8,  # sensitivity for the main target that counts as a strength
    "weak_below": 0.6,  # sensitivity below which a diagnosis counts as a weakness
    "miscalibrated": 0.05,  # calibration error that counts as a weakness
}


def summarize(results: Results, provenance: Provenance, sections: Sequence[Section]) -> tuple[list[str], list[str]]:
    """Sentences about strengths, and about weaknesses and unknowns, those of the sections among them."""
    counts = results.counts["test"].by_diagnosis
    taxonomy = results.taxonomy
    names = {each.code: each.name for each in taxonomy.diagnoses}
    points = [(name, _operating_point(results, target)) for target, name in taxonomy.named_targets.items()]
    words = {
        **LIMITS,
        "names": names,
        "taxonomy": taxonomy,
        "main": taxonomy.main_target,
        "results": results,
        "provenance": provenance,
        "most": max(taxonomy.codes, key=lambda code: counts[code]),
        "missed": _missed(results),
        "points": [(name, *point, _within(results, point[0])) for name, point in points if point is not None],
        "kept": option_of(results.rejection),
        "short": list(_short_sets(results)),
        "strata": {name: each for name, each in results.strata.items() if name != ALL},
        "overall": results.strata[ALL].metrics,
        "targets": {f"auroc_{target}": name for target, name in taxonomy.named_targets.items()},
        "weak": list(_weak_diagnoses(results, counts)),
        "weak_groups": list(_weak_groups(results)),
        "few": [f"{code} ({counts[code]})" for code in taxonomy.codes if counts[code] < FEW_LESIONS],
        "others": [text for each in sections for text in each.weaknesses],
    }
    text = environment(escape=False).get_template("summary.j2").render(words)
    good, bad = ([line for line in part.splitlines() if line] for part in text.split("----\n"))
    return [*good, *(text for each in sections for text in each.strengths)], bad


def _missed(results: Results) -> dict[str, Any]:
    """The images of the main target that are predicted to be another diagnosis, and which one most often."""
    main, taxonomy = results.taxonomy.main_target, results.taxonomy
    if main is None:
        return {"images": 0}
    missed = results.confusion[taxonomy.codes.index(main)].copy()
    missed[taxonomy.codes.index(main)] = 0
    most = taxonomy.diagnoses[int(missed.argmax())].name
    return {"images": missed.sum(), "most": most, "most_images": missed.max()}


def _within(results: Results, point: Mapping[str, Any]) -> list[tuple[str, Estimate]]:
    """Specificity at an operating point within source and on histology alone, by name."""
    return [
        (name, found.metrics["specificity"])
        for name, each in results.strata.items()
        for other, _, found in each.decisions.operating_points
        if name != ALL and other == point and found is not None
    ]


def _weak_diagnoses(results: Results, counts: Mapping[str, int]) -> Iterator[str]:
    for code, name in ((each.code, each.name) for each in results.taxonomy.diagnoses):
        recall = results.test[f"recall_{code}"]
        if (
            counts[code]
            and code != results.taxonomy.main_target
            and recall.value is not None
            and recall.value < LIMITS["weak_below"]
        ):
            yield f"{name} ({ranged_percent(recall)}, {counts[code]} images)"


def _short_sets(results: Results) -> Iterator[str]:
    """Groups whose prediction sets fall short of the nominal coverage, of the sets that are in use."""
    for fitted, found in results.decisions.conformal[:1]:
        for each in found.shortfalls(1 - fitted["alpha"]):
            name = f"{FACTS.get(each.fact, each.fact)} {each.group}".strip() or "all images"
            yield f"{name} ({ranged_percent(each.metrics.metrics['coverage'])} of {each.metrics.images} images)"


def _weak_groups(results: Results) -> Iterator[list[str]]:
    """Groups of enough lesions whose interval of accuracy lies below the overall accuracy, by fact."""
    overall = results.test["accuracy"].value or 0.0
    for fact, groups in (results.subgroups or {}).items():
        weak = [
            f"{FACTS.get(fact, fact)} {name} ({ranged_percent(accuracy)}, {each.images} images)"
            for name, each in groups.items()
            if not each.note and (accuracy := each.metrics["accuracy"]).high is not None and accuracy.high < overall
        ]
        if weak:
            yield weak


def _operating_point(results: Results, target: str) -> tuple[Mapping[str, Any], FlagMetrics] | None:
    """The operating point of a target whose desired sensitivity is nearest to 0.9."""
    usable = [
        (point, found)
        for point, _, found in results.decisions.operating_points
        if point["target"] == target and found is not None and found.metrics["sensitivity"].value is not None
    ]
    return min(usable, key=lambda each: abs(each[0]["sensitivity"] - 0.9), default=None)
