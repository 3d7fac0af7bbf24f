"""The section on images of another source: numbers, decisions, and how they differ from those of the training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import balanced_accuracy, confusion_of
from skinlesion.studies.report.formatting import decimal, ranged, ranged_percent
from skinlesion.studies.report.sections import Extra, pictures, read
from skinlesion.studies.report.tables import HEADLINE, Table, points_table
from skinlesion.taxonomy import CODES, DIAGNOSES

_MEDIANS = ("age", "aspect", "brightness", "contrast", "saturation")
_FIGURES = ("populations", "confusion_matrix", "reliability")


def external(folder: Path, test: Predictions) -> Extra:
    """The numbers of `skinlesion evaluate` on other data.

    Args:
        folder: What it left.
        test: The predictions table of the ensemble's own test part, to compare with.

    Raises:
        DataError: The folder holds none, or they cannot be used.
    """
    found = sorted(folder.glob("metrics_*.json"))
    if not found:
        raise DataError(f"external={folder}: no metrics_*.json there; give a folder that `evaluate` left")
    tables: list[Table] = []
    told: list[tuple[bool, str]] = []
    leads = []
    for path in found:
        measured = read(path, ("images", "lesions", "numbers"), verb="evaluate")
        part = path.stem.removeprefix("metrics_")
        tables += [*_numbers(folder, measured, part), *_decided(folder, part)]
        told.append(_beside_test(folder, measured, test))
        leads.append(f"{measured['images']} images of {measured['lesions']} lesions ({part}).")
        about = measured.get("external", {})
        tables += [each for each in [compared(folder, about)] if each is not None and about]
    parts = [path.stem.removeprefix("metrics_") for path in found]
    names = [f"{name}_{part}" if name != "populations" else name for name in _FIGURES for part in parts]
    shown = pictures(folder, list(dict.fromkeys(names)))
    can, fails = ([sentence for lower, sentence in told if lower is kind] for kind in (False, True))
    return Extra(f"Other data: {folder.name.replace('_', ' ')}", folder, " ".join(leads), tables, shown, can, fails)


def compared(folder: Path, about: dict[str, Any]) -> Table | None:
    """Shares of the diagnoses and medians of what can be measured, in both populations; None where there are none.

    Args:
        folder: What `evaluate external.images=…` left.
        about: Of its results: what was read, mapped and left out.

    Raises:
        DataError: The file is not readable.
    """
    path = folder / "populations.json"
    if not path.exists():
        return None
    found = read(path, ("populations", "apart"), verb="evaluate")
    described, apart = found["populations"], found["apart"]
    each = list(described.values())
    rows: list[list[Any]] = [
        [f"share of {diagnosis.name}", *(one["diagnoses"][diagnosis.code]["share"] for one in each), ""]
        for diagnosis in DIAGNOSES
    ]
    rows.append(["all diagnoses", "", "", apart["diagnoses"]])
    rows += [[f"median {name}", *((one[name] or {}).get("median") for one in each), apart[name]] for name in _MEDIANS]
    headings = ("of the images", *described, "apart, 0 to 1")
    return Table(f"external_{folder.name}_populations", "Both populations", headings, rows, _notes(about))


def _numbers(folder: Path, measured: dict[str, Any], part: str) -> Iterator[Table]:
    numbers = [("as voted", measured), ("calibrated", measured.get("calibrated"))]
    shown = [(name, each["numbers"]) for name, each in numbers if each]
    rows = [[title, *(each[key] for _, each in shown)] for key, title in HEADLINE.items()]
    headings = ("number", *(name for name, _ in shown))
    yield Table(f"external_{folder.name}_{part}", f"Main numbers ({part})", headings, rows)
    own = measured["numbers"]
    if all(f"recall_{code}" in own for code in CODES):
        rows = [[each.name, *(own[f"{name}_{each.code}"] for name in ("recall", "auroc"))] for each in DIAGNOSES]
        title = f"By diagnosis ({part})"
        yield Table(f"external_{folder.name}_{part}_diagnoses", title, ("diagnosis", "sensitivity", "AUROC"), rows)


def _decided(folder: Path, part: str) -> Iterator[Table]:
    path = folder / f"decisions_{part}.json"
    if not path.is_file():
        return
    points = read(path, ("operating_points",), verb="evaluate")["operating_points"]
    if isinstance(points, list):
        name = f"external_{folder.name}_{part}_operating_points"
        yield points_table(points, name, f"Operating points, chosen on validation ({part})")


def _beside_test(folder: Path, measured: dict[str, Any], test: Predictions) -> tuple[bool, str]:
    """Whether balanced accuracy is lower than on the test part, and both in a sentence."""
    own = float(balanced_accuracy(confusion_of(test)))
    there = measured["numbers"]["balanced_accuracy"]
    told = (
        f"On {folder.name.replace('_', ' ')} ({measured['images']} images) it is right for "
        f"{ranged_percent(measured['numbers']['accuracy'])}, with a balanced accuracy of {ranged(there)} (test part: "
        f"{decimal(own)})."
    )
    return there["value"] is not None and there["value"] < own, told


def _notes(about: dict[str, Any]) -> list[str]:
    """What was left out and what was read as something else."""
    notes = []
    if own := about.get("of_own_test_part"):
        notes.append(f"{own} images are of the test part of the model's own data set: no data from elsewhere.")
    if seen := about.get("seen"):
        known = seen["by_id"] + (seen["by_hash"] or 0)
        verb = "left out" if seen["choice"] == "drop" else "judged all the same"
        notes.append(f"{known} images are among those of training or validation: {verb}.")
        notes += [f"Images are {seen['note']}."] if "note" in seen else []
    for word, each in about.get("classes", {}).items():
        if each["counts_as"] != word:
            notes.append(f"{each['images']} images of {word}: {each['counts_as']}.")
    return notes
