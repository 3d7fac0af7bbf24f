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
from skinlesion.taxonomy import CODES, DIAGNOSES, MALIGNANT, MELANOMA

NAMES = {each.code: each.name for each in DIAGNOSES}
LIMITS = {
    "strong": 0.8,  # sensitivity for melanoma that counts as a strength
    "weak_below": 0.6,  # sensitivity below which a diagnosis counts as a weakness
    "miscalibrated": 0.05,  # calibration error that counts as a weakness
}


def summarize(results: Results, provenance: Provenance, sections: Sequence[Section]) -> tuple[list[str], list[str]]:
    """Sentences about strengths, and about weaknesses and unknowns, those of the sections among them."""
    counts = results.counts["test"].by_diagnosis
    missed = results.confusion[CODES.index(MELANOMA)].copy()
    missed[CODES.index(MELANOMA)] = 0
    most = NAMES[CODES[int(missed.argmax())]]
    points = [(name, _operating_point(results, target))
              for target, name in ((MELANOMA, "melanoma"), (MALIGNANT, "malignant diagnoses"))]  # fmt: skip
    words = {
        **LIMITS,
        "names": NAMES,
        "results": results,
        "provenance": provenance,
        "most": max(CODES, key=lambda code: counts[code]),
        "missed": {"images": missed.sum(), "most": most, "most_images": missed.max()},
        "points": [(name, *point, _within(results, point[0])) for name, point in points if point is not None],
        "kept": option_of(results.rejection),
        "short": list(_short_sets(results)),
        "strata": {name: each for name, each in results.strata.items() if name != ALL},
        "overall": results.strata[ALL].metrics,
        "targets": {f"auroc_{MELANOMA}": "melanoma", f"auroc_{MALIGNANT}": "malignant diagnoses"},
        "weak": list(_weak_diagnoses(results, counts)),
        "weak_groups": list(_weak_groups(results)),
        "few": [f"{code} ({counts[code]})" for code in CODES if counts[code] < FEW_LESIONS],
        "others": [text for each in sections for text in each.weaknesses],
    }
    text = environment(escape=False).get_template("summary.j2").render(words)
    good, bad = ([line for line in part.splitlines() if line] for part in text.split("----\n"))
    return [*good, *(text for each in sections for text in each.strengths)], bad


def _within(results: Results, point: Mapping[str, Any]) -> list[tuple[str, Estimate]]:
    """Specificity at an operating point within source and on histology alone, by name."""
    return [
        (name, found.metrics["specificity"])
        for name, each in results.strata.items()
        for other, _, found in each.decisions.operating_points
        if name != ALL and other == point and found is not None
    ]


def _weak_diagnoses(results: Results, counts: Mapping[str, int]) -> Iterator[str]:
    for code in CODES:
        recall = results.test[f"recall_{code}"]
        if counts[code] and code != MELANOMA and recall.value is not None and recall.value < LIMITS["weak_below"]:
            yield f"{NAMES[code]} ({ranged_percent(recall)}, {counts[code]} images)"


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
