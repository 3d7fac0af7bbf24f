"""The section on explanations: whether the maps of `skinlesion explain` can be trusted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skinlesion.studies.report.formatting import change
from skinlesion.studies.report.sections import Extra, pictures, read, there
from skinlesion.studies.report.tables import Table

_FIGURES = ("randomisation", "deletion_insertion", "on_lesion")  # none shows a photograph
_AREAS = {
    "deletion": "deletion: area by the map less that in random order (lower is better)",
    "insertion": "insertion: area by the map less that in random order (higher is better)",
}
_ON_LESION = {
    "peak_inside": "maps whose peak lies in the lesion",
    "energy_inside": "share of the map that lies in the lesion",
    "lesion_area": "share of the image that is lesion, for comparison",
}


def explanations(folder: Path, *, given: bool, samples: bool) -> Extra | None:
    """Checks of the maps, and, where `samples` allows photographs, overlays; None where there are neither.

    Raises:
        DataError: The folder was given and is not there, or its explanations.json cannot be used.
    """
    if not there(folder, "explanations", given=given):
        return None
    photographs = sorted(path.stem for path in folder.glob("*.png") if path.stem not in _FIGURES) if samples else []
    shown = pictures(folder, [*_FIGURES, *photographs])
    path = folder / "explanations.json"
    if not path.is_file():
        return Extra("Explanations", folder, "", [], shown) if shown else None
    found = read(path, ("part", "images_judged", "lesions_judged"), verb="explain split=val")
    lead = (
        "Grad-CAM maps of the predicted diagnosis, the mean of the members, checked on "
        f"{found['images_judged']} images of {found['lesions_judged']} lesions of the {found['part']} part."
    )
    can, fails = _judged(found)
    return Extra("Explanations", folder, lead, [_table(found)], shown, can, fails)


def _table(found: dict[str, Any]) -> Table:
    lesion = found.get("lesion") or {}
    rows = [*_randomised(found)]
    rows += [[title, found[name]["area_less_random"]] for name, title in _AREAS.items() if name in found]
    rows += [[title, lesion[name]] for name, title in _ON_LESION.items() if name in lesion]
    notes = [] if lesion else ["Not checked against lesion masks: none were given."]
    return Table("explanations", "Can the maps be trusted?", ("check", "number"), rows, notes)


def _randomised(found: dict[str, Any]) -> Iterator[list[Any]]:
    for name, steps in found.get("randomisation", {}).get("members", {}).items():
        yield [f"{name}, all weights randomised: rank correlation with the trained map (near 0 is better)",
               steps[-1]["correlation"]]  # fmt: skip


def _judged(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Sentences for what the maps can, and for what they cannot."""
    can, fails = [], []
    for name, wanted in (("deletion", -1), ("insertion", 1)):
        area = found.get(name, {}).get("area_less_random")
        if not area or area["low"] is None or area["high"] is None:
            continue
        less = "faster" if name == "deletion" else "sooner"
        told = (
            f"When pixels are {'blurred away' if name == 'deletion' else 'brought back'} in the order of the maps, the "
            f"probability {'falls' if name == 'deletion' else 'rises'}"
        )
        low, high = sorted(wanted * area[end] for end in ("low", "high"))
        if high < 0:
            fails.append(f"{told} later than in random order (area {change(area)}).")
        elif low > 0:
            can.append(f"{told} {less} than in random order (area {change(area)}).")
        else:
            fails.append(f"{told} no {less} than in random order, as far as is shown (area {change(area)}).")
    return can, fails
