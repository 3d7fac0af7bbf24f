"""The section on robustness: what `skinlesion robustness` measured, as tables, figures and sentences."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skinlesion.studies.report.formatting import change, decimal, percent, ranged, ranged_percent
from skinlesion.studies.report.sections import Extra, pictures, read, there
from skinlesion.studies.report.tables import Table

_FIGURES = ("disturbed", "lesion_removed", "facts", "novelty")
_KEYS = ("part", "images_judged", "lesions_judged", "undisturbed", "without_images", "images", "facts")
_REMOVED = "lesion_removed"
_NUMBERS = {"balanced_accuracy": "balanced accuracy", "recall_mel": "sensitivity mel", "same": "same diagnosis"}
_NAMES = {
    "hair": "hair",
    "ruler": "a ruler",
    "vignette": "a dark frame",
    "blur": "blur",
    "jpeg": "JPEG compression",
    "brightness": "brightness",
    "colour": "colour shift",
    "lesion_removed": "the lesion removed",
    "no_age": "without age",
    "no_sex": "without sex",
    "no_localization": "without localization",
    "nothing_known": "without any fact",
    "permuted": "facts of another patient",
    "contradictory": "facts of a patient of the other category",
}
_FLAGGED = 0.9  # pictures of which less is flagged are named among the failures


def robustness(folder: Path, *, given: bool) -> Extra | None:
    """What was measured on disturbed images; None where no such folder is there or given.

    Raises:
        DataError: The folder was given and is not there, or its robustness.json cannot be used.
    """
    if not there(folder, "robustness", given=given):
        return None
    found = read(folder / "robustness.json", _KEYS, verb="robustness")
    lead = (
        f"{found['images_judged']} images of {found['lesions_judged']} lesions of the {found['part']} part, disturbed "
        "as they were taken, in steps; and with facts that are missing or wrong. Changes are paired: both sides see "
        "the same resamples of lesions."
    )
    can, fails = list(_strengths(found)), list(_failures(found))
    return Extra("Robustness and shortcuts", folder, lead, list(_tables(found)), pictures(folder, _FIGURES), can, fails)


def _tables(found: dict[str, Any]) -> Iterator[Table]:
    rows: list[list[Any]] = [["as they are", "", *_cells(found["undisturbed"]["numbers"])]]
    for name, each in found["images"].items():
        rows += [[_NAMES[name], f"{step['step']:g} {each['unit']}", *_cells(step["numbers"])] for step in each["steps"]]
    rows += [[_NAMES[name], "", *_cells(each["steps"][0]["numbers"])] for name, each in found["facts"].items()]
    headings = ("images or facts", "step", "balanced accuracy", "its change", *list(_NUMBERS.values())[1:], "flagged")
    notes = [f"Always the commonest diagnosis: {decimal(found['without_images']['balanced_accuracy'])}."]
    notes += ["Flagged: as no dermoscopy. It is judged by the image alone, so not for facts."]
    yield Table("robustness", "Disturbed images and facts", headings, rows, notes)
    if "novelty" in found:
        told = found["novelty"]["pictures"]
        rows = [
            [kind.replace("_", " "), each["pictures"], each["auroc"], each["flagged"]] for kind, each in told.items()
        ]
        title = "Told apart from dermoscopy"
        note = "Negative, scrambled and blue skin are the dermoscopic images, altered; the others have nothing of them."
        yield Table("novelty", title, ("pictures", "number", "AUROC", "share flagged"), rows, [note])


def _cells(numbers: dict[str, Any]) -> list[Any]:
    names = ("balanced_accuracy", "change_balanced_accuracy", "recall_mel", "same")
    return [*(numbers[name] for name in names), numbers.get("novel", "")]


def _steps(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The step of each disturbance, but the removed lesion, that costs most balanced accuracy: `step` and `numbers`."""
    for name, each in found["images"].items():
        if name != _REMOVED:
            yield name, min(each["steps"], key=lambda step: step["numbers"]["balanced_accuracy"]["value"] or 0.0)


def _harmed(numbers: dict[str, Any]) -> bool:
    high = numbers["change_balanced_accuracy"]["high"]
    return high is not None and high < 0


def _strengths(found: dict[str, Any]) -> Iterator[str]:
    spared = [_NAMES[name] for name, step in _steps(found) if not _harmed(step["numbers"])]
    if spared:
        yield f"No loss of balanced accuracy is shown, at any step tried, under {', '.join(spared)}."
    told = found.get("novelty", {}).get("pictures", {})
    strange = [kind for kind, each in told.items() if each["flagged"]["value"] >= _FLAGGED]
    if strange:
        own = found["undisturbed"]["numbers"]["novel"]
        least = min(told[kind]["flagged"]["value"] for kind in strange)
        names = ", ".join(kind.replace("_", " ") for kind in strange)
        yield (
            f"It flags pictures that are no dermoscopy: at least {percent(round(least, 3))} each of {names}, and "
            f"{ranged_percent(own)} of the dermoscopic images."
        )


def _failures(found: dict[str, Any]) -> Iterator[str]:
    harmed = [
        f"{_NAMES[name]} ({change(step['numbers']['change_balanced_accuracy'])})"
        for name, step in _steps(found)
        if _harmed(step["numbers"])
    ]
    if harmed:
        yield f"Balanced accuracy falls, at the worst step tried, under {', '.join(harmed)}."
    if _REMOVED in found["images"]:
        # where all is painted over no surroundings are left: the last step before that tells more
        last = max(found["images"][_REMOVED]["steps"], key=lambda step: (step["step"] < 1, step["step"]))
        left, chance = last["numbers"]["balanced_accuracy"], found["without_images"]["balanced_accuracy"]
        yield (
            f"With {percent(last['step'])} of the image painted over from its middle, balanced accuracy is "
            f"{ranged(left)} (always the commonest diagnosis: {decimal(chance)}); what is above that comes from "
            "surroundings and facts, not from the lesion."
        )
    moved = [
        f"{_NAMES[name]} {change(found['facts'][name]['steps'][0]['numbers']['change_balanced_accuracy'])}"
        for name in ("nothing_known", "contradictory")
        if name in found["facts"]
    ]
    if moved:
        yield f"What facts change in balanced accuracy: {'; '.join(moved)}."
    told = found.get("novelty", {}).get("pictures", {})
    missed = [f"{kind.replace('_', ' ')} ({ranged_percent(each['flagged'])})" for kind, each in told.items()
              if each["flagged"]["value"] < _FLAGGED]  # fmt: skip
    if missed:
        yield f"Of these pictures it flags less than {percent(_FLAGGED)}: {', '.join(missed)}."
