"""Section of a report on images of another source: results, decisions, and differences from the training data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skinlesion.errors import DataError
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import headline
from skinlesion.metrics.estimate import Estimate
from skinlesion.studies.report.formatting import decimal, ranged, ranged_percent
from skinlesion.studies.report.sections import Section, estimates, read_pictures, read_results
from skinlesion.studies.report.tables import HEADLINE, Rows, Table, points_table
from skinlesion.taxonomy import CODES, DIAGNOSES

_MEASURES = ("age", "aspect", "brightness", "contrast", "saturation")


def external_section(folder: Path, test: Predictions) -> Section:
    """Section on the results of `skinlesion evaluate` for external data.

    Args:
        folder: Folder written by the command.
        test: Predictions of the ensemble for its own test part, for comparison.

    Raises:
        DataError: The folder contains no results, or they are invalid.
    """
    paths = sorted(folder.glob("metrics_*.json"))
    if not paths:
        raise DataError(f"external={folder}: no metrics_*.json there; give a folder that `evaluate` wrote")
    parts = [path.stem.removeprefix("metrics_") for path in paths]
    own = headline(test)["balanced_accuracy"]
    source = "" if folder.name == "external" else folder.name.replace("_", " ")
    tables: list[Table] = []
    leads: list[str] = []
    strengths: list[str] = []
    weaknesses: list[str] = []
    for path, part in zip(paths, parts, strict=True):
        found = read_results(path, ("images", "lesions", "numbers"), command="evaluate")
        numbers = estimates(found["numbers"])
        leads.append(f"{found['images']} images of {found['lesions']} lesions ({part}).")
        tables += [*_metrics(found, f"external_{folder.name}_{part}", part), *_decisions(folder, part)]
        if about := found.get("external"):
            tables += [each for each in [populations_table(folder, about)] if each is not None]
        balanced = numbers["balanced_accuracy"]
        worse = balanced.value is not None and balanced.value < own
        (weaknesses if worse else strengths).append(
            f"On {found['images']} external images{source and f' ({source})'}, accuracy is "
            f"{ranged_percent(numbers['accuracy'])} and balanced "
            f"accuracy is {ranged(balanced)} (test part: {decimal(own)})."
        )
    names = ["populations", *(f"{name}_{part}" for name in ("confusion_matrix", "reliability") for part in parts)]
    pictures = read_pictures(folder, names)
    return Section(f"External data{source and f': {source}'}", " ".join(leads), tables, pictures, strengths, weaknesses)


def populations_table(folder: Path, about: dict[str, Any]) -> Table | None:
    """Shares of the diagnoses and medians of measures in both populations; None if they were not compared.

    Args:
        folder: Folder written by `evaluate external.images=…`.
        about: Description of the source from its results.

    Raises:
        DataError: The file is not readable.
    """
    path = folder / "populations.json"
    if not path.exists():
        return None
    found = read_results(path, ("populations", "apart"), command="evaluate")
    both, apart = list(found["populations"].values()), found["apart"]
    rows: Rows = [
        [f"share of {each.name}", *(one["diagnoses"][each.code]["share"] for one in both), ""] for each in DIAGNOSES
    ]
    rows.append(["all diagnoses", "", "", apart["diagnoses"]])
    rows += [[f"median {name}", *((one[name] or {}).get("median") for one in both), apart[name]] for name in _MEASURES]
    headings = ("property", *found["populations"], "distance, 0 to 1")
    return Table(f"external_{folder.name}_populations", "Both populations", headings, rows, _notes(about))


def _metrics(found: dict[str, Any], name: str, part: str) -> Iterator[Table]:
    columns = {"before calibration": estimates(found["numbers"])}
    if found.get("calibrated"):
        columns["after calibration"] = estimates(found["calibrated"]["numbers"])
    rows: Rows = [[title, *(numbers[metric] for numbers in columns.values())] for metric, title in HEADLINE.items()]
    yield Table(name, f"Main results ({part})", ("metric", *columns), rows)
    own = columns["before calibration"]
    if all(f"recall_{code}" in own for code in CODES):
        rows = [[each.name, own[f"recall_{each.code}"], own[f"auroc_{each.code}"]] for each in DIAGNOSES]
        title = f"Results by diagnosis ({part})"
        yield Table(f"{name}_diagnoses", title, ("diagnosis", "sensitivity", "AUROC"), rows)


def _decisions(folder: Path, part: str) -> Iterator[Table]:
    path = folder / f"decisions_{part}.json"
    if not path.is_file():
        return
    points = read_results(path, ("operating_points",), command="evaluate")["operating_points"]
    if isinstance(points, list):
        metrics = [
            (
                point,
                point.get("prevalence"),
                {name: Estimate.from_dict(each) for name, each in point["numbers"].items()},
            )
            for point in points
        ]
        name = f"external_{folder.name}_{part}_operating_points"
        yield points_table(metrics, name=name, title=f"Operating points chosen on validation ({part})")


def _notes(about: dict[str, Any]) -> list[str]:
    """Treatment of the images that the model knows and of other diagnoses."""
    notes = []
    if own := about.get("of_own_test_part"):
        notes.append(f"{own} images belong to the test part of the model's own data set, so they are not external.")
    if known := about.get("seen"):
        treatment = "left out" if known["choice"] == "drop" else "evaluated all the same"
        number = known["by_id"] + (known["by_hash"] or 0)
        notes.append(f"{number} images are in the training or validation data: {treatment}.")
        notes += [f"Images are {known['note']}."] if "note" in known else []
    notes += [
        f"{each['images']} images of {word}: {each['counts_as']}."
        for word, each in about.get("classes", {}).items()
        if each["counts_as"] != word
    ]
    return notes
