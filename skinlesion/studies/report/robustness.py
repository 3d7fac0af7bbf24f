"""Section of a report on robustness: corrupted images, altered facts, and out-of-distribution images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from skinlesion.metrics.estimate import Estimate, Estimates
from skinlesion.plots.report import FACTS
from skinlesion.plots.robustness import REMOVED, name_of
from skinlesion.studies.report.formats import Rows, Table, change, decimal, percent, ranged, ranged_percent
from skinlesion.studies.report.sections import PARTS, Section, estimates, read_pictures, read_results
from skinlesion.studies.report.tables import recall_title
from skinlesion.taxonomy import HAM10000, Taxonomy

_KEYS = ("part", "images_judged", "lesions_judged", "undisturbed", "without_images", "images", "facts")
_DETECTED = 0.9  # share of flagged images below which a kind counts as a weakness

Steps = Mapping[str, Sequence[tuple[float, Estimates]]]
"""Numbers at each step of each corruption of the images or alteration of the facts."""


def robustness_section(folder: Path, *, taxonomy: Taxonomy = HAM10000) -> Section:
    """Section on the results of `skinlesion robustness` for the diagnoses of a taxonomy.

    Raises:
        DataError: The robustness.json in the folder is invalid.
    """
    found = read_results(folder / "robustness.json", _KEYS, command="robustness")
    original = estimates(found["undisturbed"]["numbers"])
    images, facts = (
        {name: [(each["step"], estimates(each["numbers"])) for each in steps["steps"]] for name, steps in kind.items()}
        for kind in (found["images"], found["facts"])
    )
    baseline = decimal(found["without_images"]["balanced_accuracy"])
    strengths, weaknesses = _summarize_corruptions(images)
    weaknesses += _summarize_shortcuts(images, facts, baseline)
    units = {name: each["unit"] for name, each in found["images"].items()}
    tables = [_table(original, {**images, **facts}, units, baseline, taxonomy)]
    if "novelty" in found:
        kinds = {kind.replace("_", " "): (each["pictures"], *estimates(each, "auroc", "flagged").values())
                 for kind, each in found["novelty"]["pictures"].items()}  # fmt: skip
        detected, missed = _summarize_detection({kind: each[2] for kind, each in kinds.items()}, original["novel"])
        strengths, weaknesses = strengths + detected, weaknesses + missed
        rows: Rows = [[kind, *each] for kind, each in kinds.items()]
        note = "Negative, scrambled and blue skin are altered dermoscopic images; the others are not dermoscopic."
        headings = ("images", "number", "AUROC", "share flagged")
        tables.append(Table("novelty", "Detection of out-of-distribution images", headings, rows, [note]))
        rates = [
            (fact, name, rate)
            for fact, groups in found["novelty"].get("flag_rates", {}).items()
            for name, rate in estimates(groups).items()
        ]
        if rates:
            title = "False alarms: dermoscopic images flagged as unlike the training images"
            tables.append(
                Table("flag_rates", title, ("fact", "group", "share flagged"), [list(each) for each in rates])
            )
        alarms = [
            f"{FACTS.get(fact, fact)} {name} ({ranged_percent(rate)})"
            for fact, name, rate in rates
            if rate.low is not None and rate.low > 2 * (original["novel"].value or 0.0)
        ]
        if alarms:
            often = "more than twice as often as on average"
            weaknesses.append(f"Flagged as unlike the training images {often}: {', '.join(alarms)}.")
    return Section(
        title="Robustness and shortcuts",
        lead=f"{found['images_judged']} images of {found['lesions_judged']} lesions of the "
        f"{PARTS[found['part']]} part, corrupted in steps, and with missing or wrong facts. Changes are paired: both "
        "sides use the same resamples of lesions.",
        tables=tables,
        pictures=read_pictures(folder, ("disturbed", REMOVED, "facts", "novelty")),
        strengths=strengths,
        weaknesses=weaknesses,
    )


def _summarize_corruptions(images: Steps) -> tuple[list[str], list[str]]:
    """Sentences about corruptions without and with a loss of balanced accuracy at their worst step."""
    harmless, harmful = [], []
    for name, steps in images.items():
        if name == REMOVED:
            continue
        _, worst = min(steps, key=lambda step: step[1]["balanced_accuracy"].value or 0.0)
        loss = worst["change_balanced_accuracy"]
        if loss.high is not None and loss.high < 0:
            harmful.append(f"{name_of(name)} ({change(loss)})")
        else:
            harmless.append(name_of(name))
    return (
        [f"No loss of balanced accuracy is shown at any tested step of {', '.join(harmless)}."] if harmless else [],
        [f"Balanced accuracy falls at the worst tested step of {', '.join(harmful)}."] if harmful else [],
    )


def _summarize_shortcuts(images: Steps, facts: Steps, baseline: str) -> list[str]:
    """Sentences about images without the lesion and about altered facts."""
    found = []
    if REMOVED in images:
        # the largest step below 1: at 1 the surroundings are painted over too
        step, numbers = max(images[REMOVED], key=lambda each: (each[0] < 1, each[0]))
        found.append(
            f"With {percent(step)} of the image painted over from its centre, balanced accuracy is "
            f"{ranged(numbers['balanced_accuracy'])} (always predicting the most frequent diagnosis: {baseline}). "
            "Performance above that comes from surroundings and facts, not from the lesion."
        )
    effects = [
        f"{name_of(name)} {change(facts[name][0][1]['change_balanced_accuracy'])}"
        for name in ("nothing_known", "contradictory")
        if name in facts
    ]
    return [*found, f"Change in balanced accuracy by altered facts: {'; '.join(effects)}."] if effects else found


def _summarize_detection(flagged: Mapping[str, Estimate], original: Estimate) -> tuple[list[str], list[str]]:
    """Sentences about kinds of images that are flagged as out-of-distribution and about those that are not."""
    shares = {kind: each.value or 0.0 for kind, each in flagged.items()}
    detected = [kind for kind, share in shares.items() if share >= _DETECTED]
    missed = [f"{kind} ({ranged_percent(flagged[kind])})" for kind in flagged if kind not in detected]
    least = percent(round(min((shares[kind] for kind in detected), default=0.0), 3))
    good = (
        f"Flags as unlike the training images at least {least} of: {', '.join(detected)}; "
        f"{ranged_percent(original)} of these dermoscopic images are flagged too."
    )
    bad = f"Flags less than {percent(_DETECTED)} of these images: {', '.join(missed)}."
    return [good] if detected else [], [bad] if missed else []


def _table(original: Estimates, changes: Steps, units: Mapping[str, str], baseline: str, taxonomy: Taxonomy) -> Table:
    columns = {
        "balanced_accuracy": "balanced accuracy",
        "change_balanced_accuracy": "change",
        **recall_title(taxonomy),
        "same": "same prediction",
        "novel": "flagged",
    }
    rows: Rows = [["original", "", *(original.get(column, "") for column in columns)]]
    rows += [
        [
            name_of(name) + (f": {units[name]}" if name in units else ""),
            f"{step:g}" if name in units else "",
            *(numbers.get(column, "") for column in columns),
        ]
        for name, steps in changes.items()
        for step, numbers in steps
    ]
    notes = [
        f"Balanced accuracy of always predicting the most frequent diagnosis: {baseline}.",
        "Flagged: as out-of-distribution, which depends on the image alone and not on the facts.",
    ]
    headings = ("images or facts", "step", *columns.values())
    return Table("robustness", "Corrupted images and altered facts", headings, rows, notes)
