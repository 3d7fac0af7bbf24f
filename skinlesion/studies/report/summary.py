"""The plain summary: what the ensemble can and where it fails, each sentence derived from the numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from skinlesion.metrics.subgroups import FEW_LESIONS
from skinlesion.studies.report.formatting import decimal, percent, ranged, ranged_percent
from skinlesion.taxonomy import CODES, DIAGNOSES, MALIGNANT, MELANOMA

NAMES = {each.code: each.name for each in DIAGNOSES}
_STRONG = 0.8  # from this share of melanomas on their recognition is a strength
_WEAK = 0.6  # a diagnosis of which less is recognised is named among the failures
_UNSURE = 0.05  # a calibration error from here on is told


def strengths(evidence: dict[str, Any]) -> list[str]:
    """What it can."""
    return list(_strengths(evidence))


def failures(evidence: dict[str, Any], material: dict[str, Any], elsewhere: Sequence[str] = ()) -> list[str]:
    """Where it fails, and what is not known.

    Args:
        evidence: As from `evidence.gather`.
        material: As from `material.material`.
        elsewhere: Failures that other verbs found, in sentences.
    """
    return [*_failures(evidence), *elsewhere, *_unknown(evidence, material)]


def _strengths(evidence: dict[str, Any]) -> Iterator[str]:
    test, counts = evidence["performance"]["test"], evidence["counts"]["test"]
    numbers = test["numbers"]
    yield (
        f"On {test['images']} images of {test['lesions']} lesions that it never saw, the likeliest diagnosis is right "
        f"for {ranged_percent(numbers['accuracy'])}. {_baseline(counts)}"
    )
    yield (
        f"Averaged over the diagnoses, so that rare ones count as much as nevi, it recognises "
        f"{ranged_percent(numbers['balanced_accuracy'])} (balanced accuracy); macro-F1 is "
        f"{ranged(numbers['macro_f1'])}, the mean area under the ROC curves {ranged(numbers['macro_auroc'])}."
    )
    yield from _melanoma(evidence, strong=True)
    for target, name in ((MELANOMA, "melanomas"), (MALIGNANT, "malignant images")):
        point = _point(evidence, target)
        if point is not None:
            found = point["numbers"]
            yield (
                f"At the threshold chosen on validation for {percent(point['sensitivity'])} sensitivity it flags "
                f"{ranged_percent(found['sensitivity'])} of the {point['counts']['tp'] + point['counts']['fn']} {name} "
                f"and spares {ranged_percent(found['specificity'])} of the others."
            )
    if isinstance(evidence["conformal"], list):
        first = evidence["conformal"][0]
        yield (
            f"Its prediction sets, made to hold the actual diagnosis in {percent(first['wanted'])} of cases, hold it "
            f"in {ranged_percent(first['all']['coverage'])} and name {ranged(first['all']['size'])} diagnoses on "
            "average."
        )
    kept = next(row for row in evidence["rejection"]["kept"]["confidence"] if row["wanted"] == 0.8)
    yield (
        f"If the least sure images go to a person and {percent(kept['coverage'])} are kept, "
        f"{ranged_percent(kept['risk'])} of these are wrong, instead of {percent(1 - numbers['accuracy']['value'])}."
    )


def _failures(evidence: dict[str, Any]) -> Iterator[str]:
    numbers, counts = evidence["performance"]["test"]["numbers"], evidence["counts"]["test"]["by_diagnosis"]
    recall = {code: numbers[f"recall_{code}"] for code in CODES if counts[code]}
    yield from _melanoma(evidence, strong=False)
    weak = [code for code in recall if recall[code]["value"] < _WEAK and code != MELANOMA]
    if weak:
        told = "; ".join(f"{NAMES[code]}: {ranged_percent(recall[code])} of {counts[code]}" for code in weak)
        yield f"It recognises less than {percent(_WEAK)} of these: {told}."
    yield from _worse_groups(evidence)
    scores = evidence["calibration"]["test"]
    gap = evidence["counts"]["test"]["mean_confidence"] - numbers["accuracy"]["value"]
    after = scores["after"]["ece"]
    if scores["before"]["ece"] >= _UNSURE:
        way = "too sure" if gap > 0 else "too unsure"
        yield (
            f"As voted it is {way}: its confidence differs from its accuracy by {decimal(scores['before']['ece'])} on "
            f"average (expected calibration error), after calibration by {decimal(after)}."
        )
    elif after >= _UNSURE:
        yield f"Its calibrated confidence still differs from its accuracy by {decimal(after)} on average."


def _melanoma(evidence: dict[str, Any], *, strong: bool) -> Iterator[str]:
    """How many melanomas are named as such, among the strengths or the failures."""
    recall = evidence["performance"]["test"]["numbers"][f"recall_{MELANOMA}"]
    if recall["value"] is None or (recall["value"] >= _STRONG) != strong:
        return
    yield (
        f"Of {evidence['counts']['test']['by_diagnosis'][MELANOMA]} melanomas it names {ranged_percent(recall)} as "
        f"melanoma; {_taken_for(evidence, MELANOMA)}"
    )


def _worse_groups(evidence: dict[str, Any]) -> Iterator[str]:
    """Groups of enough lesions whose whole interval of accuracy lies below that of all images."""
    overall = evidence["performance"]["test"]["numbers"]["accuracy"]["value"]
    if "note" in evidence["subgroups"]:
        return
    for fact, groups in evidence["subgroups"].items():
        worse = []
        for name, each in groups.items():
            number = each["numbers"]["accuracy"]
            if "note" not in each and number["high"] is not None and number["high"] < overall:
                worse.append(f"{name} {ranged_percent(number)} of {each['images']}")
        if worse:
            yield f"By {fact} it is right less often than overall for {', '.join(worse)} images."


def _unknown(evidence: dict[str, Any], material: dict[str, Any]) -> Iterator[str]:
    counts = evidence["counts"]["test"]["by_diagnosis"]
    few = [f"{code} ({counts[code]})" for code in CODES if counts[code] < FEW_LESIONS]
    if few:
        yield f"Too few test images to say much: {', '.join(few)}."
    sets = evidence["conformal"]
    if isinstance(sets, list) and sets[0]["always"]:
        yield (
            f"Validation holds too few images of {', '.join(sets[0]['always'])} to rule them out: they stand in every "
            "prediction set."
        )
    novelty = material["novelty"]
    strange = "" if novelty is None else ", and flags images that look unlike those it was trained on"
    yield (
        "HAM10000's images come from two sites, and skin type is not recorded. Other diagnoses than these seven are "
        f"not known to the model: it names one of the seven whatever it is shown{strange}."
    )
    yield from (f"Not found: {each}." for each in material["absent"])


def _baseline(counts: dict[str, Any]) -> str:
    code = max(CODES, key=lambda each: counts["by_diagnosis"][each])
    share = counts["by_diagnosis"][code] / counts["images"]
    return f"Always answering {NAMES[code]} would be right for {percent(share)}."


def _point(evidence: dict[str, Any], target: str, *, wanted: float = 0.9) -> dict[str, Any] | None:
    """The operating point of a target whose wanted sensitivity is nearest, if it could be chosen and judged."""
    points = evidence["operating_points"]
    own = [each for each in points if each["target"] == target] if isinstance(points, list) else []
    usable = [each for each in own if each["counts"] and each["numbers"]["sensitivity"]["value"] is not None]
    return min(usable, key=lambda each: abs(each["sensitivity"] - wanted), default=None)


def _taken_for(evidence: dict[str, Any], code: str) -> str:
    row = np.array(evidence["confusion"]["counts"])[CODES.index(code)]
    row[CODES.index(code)] = 0
    if not row.any():
        return "none is taken for another diagnosis."
    other = CODES[int(row.argmax())]
    return f"the others are most often taken for {NAMES[other]} ({row.max()} of {row.sum()})."
