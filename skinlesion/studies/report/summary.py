"""Summary of a report: sentences about strengths and weaknesses, derived from the results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skinlesion.metrics.decision import FlagMetrics
from skinlesion.metrics.summary import FEW_LESIONS
from skinlesion.studies.report.results import Results
from skinlesion.studies.report.sources import Provenance
from skinlesion.studies.report.tables import decimal, percent, ranged, ranged_percent
from skinlesion.taxonomy import CODES, DIAGNOSES, MALIGNANT, MELANOMA

NAMES = {each.code: each.name for each in DIAGNOSES}
_STRONG = 0.8  # sensitivity for melanoma that counts as a strength
_WEAK = 0.6  # sensitivity below which a diagnosis counts as a weakness
_MISCALIBRATED = 0.05  # calibration error that counts as a weakness
_FACTS = {"dataset": "image source", "dx_type": "confirmation"}


def weaknesses(results: Results, provenance: Provenance, others: Sequence[str] = ()) -> list[str]:
    """Sentences about what the ensemble does badly, those of `others` sections, and about what is unknown."""
    return [*_weaknesses(results), *others, *_unknowns(results, provenance)]


def strengths(results: Results) -> Iterator[str]:
    """Sentences about what the ensemble does well."""
    test, counts = results.test, results.counts["test"]
    most = max(CODES, key=lambda code: counts.by_diagnosis[code])
    yield (
        f"On {counts.images} test images of {counts.lesions} lesions that were not used for training, accuracy is "
        f"{ranged_percent(test['accuracy'])}. Always predicting {NAMES[most]} would reach "
        f"{percent(counts.by_diagnosis[most] / counts.images)}."
    )
    yield (
        f"Balanced accuracy, which gives every diagnosis the same weight, is "
        f"{ranged_percent(test['balanced_accuracy'])}; macro-F1 is {ranged(test['macro_f1'])} and macro AUROC is "
        f"{ranged(test['macro_auroc'])}."
    )
    yield from _melanoma(results, strong=True)
    for target, name in ((MELANOMA, "melanoma"), (MALIGNANT, "malignant diagnoses")):
        point = _operating_point(results, target)
        if point is not None:
            fitted, found = point
            yield (
                f"At the threshold for {name} chosen on validation for {percent(fitted['sensitivity'])} sensitivity, "
                f"sensitivity is {ranged_percent(found.metrics['sensitivity'])} on "
                f"{found.counts['tp'] + found.counts['fn']} images and specificity is "
                f"{ranged_percent(found.metrics['specificity'])}."
            )
    if results.decisions.conformal:
        sets, found_sets = results.decisions.conformal[0]
        overall = found_sets.overall.metrics
        yield (
            f"Prediction sets with a nominal coverage of {percent(1 - sets['alpha'])} contain the actual diagnosis of "
            f"{ranged_percent(overall['coverage'])} of the images, and {ranged(overall['size'])} diagnoses on average."
        )
    kept = next(each for each in results.rejection.kept["confidence"] if each.wanted == 0.8)
    error = None if test["accuracy"].value is None else 1 - test["accuracy"].value
    yield (
        f"If only the most confident {percent(kept.coverage)} of the images are kept, the error rate is "
        f"{ranged_percent(kept.risk)} instead of {percent(error)}."
    )


def _weaknesses(results: Results) -> Iterator[str]:
    counts, test = results.counts["test"], results.test
    yield from _melanoma(results, strong=False)
    recalls = {code: test[f"recall_{code}"] for code in CODES if counts.by_diagnosis[code] and code != MELANOMA}
    weak = [
        f"{NAMES[code]} ({ranged_percent(recall)}, {counts.by_diagnosis[code]} images)"
        for code, recall in recalls.items()
        if recall.value is not None and recall.value < _WEAK
    ]
    if weak:
        yield f"Sensitivity is below {percent(_WEAK)} for {_listed(weak)}."
    yield from _weak_groups(results)
    before, after = (scores["test"].ece for scores in (results.calibration.before, results.calibration.after))
    if before >= _MISCALIBRATED:
        over = counts.mean_confidence > (test["accuracy"].value or 0.0)
        yield (
            f"Before calibration the ensemble is {'overconfident' if over else 'underconfident'}: the expected "
            f"calibration error is {decimal(before)}; after calibration it is {decimal(after)}."
        )
    elif after >= _MISCALIBRATED:
        yield f"After calibration, the expected calibration error is still {decimal(after)}."


def _melanoma(results: Results, *, strong: bool) -> Iterator[str]:
    """Sensitivity for melanoma, as a strength or as a weakness."""
    recall = results.test[f"recall_{MELANOMA}"]
    if recall.value is None or (recall.value >= _STRONG) != strong:
        return
    missed = results.confusion[CODES.index(MELANOMA)].copy()
    missed[CODES.index(MELANOMA)] = 0
    other = NAMES[CODES[int(missed.argmax())]]
    error = f"; the most frequent error is {other} ({missed.max()} of {missed.sum()})" if missed.any() else ""
    images = results.counts["test"].by_diagnosis[MELANOMA]
    yield f"Sensitivity for melanoma is {ranged_percent(recall)} on {images} images{error}."


def _weak_groups(results: Results) -> Iterator[str]:
    """Groups of enough lesions whose interval of accuracy lies below the overall accuracy."""
    overall = results.test["accuracy"].value
    for fact, groups in (results.subgroups or {}).items():
        weak = [
            f"{_FACTS.get(fact, fact)} {name} ({ranged_percent(accuracy)}, {each.images} images)"
            for name, each in groups.items()
            if not each.note
            and (accuracy := each.metrics["accuracy"]).high is not None
            and overall is not None
            and accuracy.high < overall
        ]
        if weak:
            yield f"Accuracy is below average for {_listed(weak)}."


def _unknowns(results: Results, provenance: Provenance) -> Iterator[str]:
    counts = results.counts["test"].by_diagnosis
    few = [f"{code} ({counts[code]})" for code in CODES if counts[code] < FEW_LESIONS]
    if few:
        yield f"The test part has few images of {_listed(few)}: their results are uncertain."
    always = results.decisions.conformal[0][0]["always"] if results.decisions.conformal else []
    if always:
        yield f"Every prediction set contains {_listed(always)}: validation has too few images to rule them out."
    flags = "" if provenance.novelty is None else ", and flags images that differ from the training images"
    yield (
        "HAM10000 comes from two sites and does not record skin type. The ensemble knows no diagnosis other than these "
        f"seven: it assigns one of them to every image{flags}."
    )
    yield from (f"Not available: {each}." for each in provenance.absent)


def _operating_point(results: Results, target: str) -> tuple[Mapping[str, Any], FlagMetrics] | None:
    """The operating point of a target whose desired sensitivity is nearest to 0.9."""
    usable = [
        (point, found)
        for point, _, found in results.decisions.operating_points
        if point["target"] == target and found is not None and found.metrics["sensitivity"].value is not None
    ]
    return min(usable, key=lambda each: abs(each[0]["sensitivity"] - 0.9), default=None)


def _listed(items: Sequence[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
