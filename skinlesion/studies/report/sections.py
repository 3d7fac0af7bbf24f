"""Sections of a report made from the results of `explain` and of `evaluate` on images of another source."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from skinlesion.errors import DataError, counted
from skinlesion.inference.ledger import LedgerEntry
from skinlesion.inference.predictions import Predictions
from skinlesion.metrics.classification import headline
from skinlesion.metrics.estimate import Estimate
from skinlesion.metrics.saliency_verdict import UNRELATED, randomisation_verdict, verdict
from skinlesion.studies.report.formats import Rows, Table, change, decimal, ranged, ranged_percent
from skinlesion.studies.report.page import Picture, data_uri
from skinlesion.studies.report.tables import HEADLINE, points_table
from skinlesion.taxonomy import HAM10000, Taxonomy

PARTS = {"train": "training", "val": "validation", "test": "test"}
_MAX_WIDTH = 1400  # pixels of a picture on the page


@dataclass(frozen=True)
class Section:
    """A section made from the results of another command."""

    title: str
    lead: str  # what was done, in a sentence or two
    tables: list[Table]
    pictures: list[Picture]
    strengths: list[str] = field(default_factory=list)  # sentences for the summary
    weaknesses: list[str] = field(default_factory=list)


def section_folder(folder: str | None, default: Path, *, key: str) -> Path | None:
    """The folder with the results of a command: the given one, or the default if it exists.

    Raises:
        DataError: The given folder does not exist.
    """
    if folder is not None and not Path(folder).is_dir():
        raise DataError(f"{key}={folder}: no such folder; give the folder of the results, or null")
    path = default if folder is None else Path(folder)
    return path if path.is_dir() else None


def read_results(path: Path, keys: Sequence[str], *, command: str) -> dict[str, Any]:
    """Read the results of a command.

    Raises:
        DataError: The file is not readable or lacks a key.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in found]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not readable ({error}); run `{command}` again") from error
    if missing:
        raise DataError(f"{path}: no {', '.join(missing)}; it was written by an older version: run `{command}` again")
    return found


def estimates(numbers: Mapping[str, Any], *names: str) -> dict[str, Estimate]:
    """Estimates by name, from JSON; `names`: those alone."""
    return {name: Estimate.from_dict(numbers[name]) for name in names or numbers}


def read_pictures(folder: Path, names: Sequence[str]) -> list[Picture]:
    """The named PNG files of a folder that exist, reduced for the page, with their captions."""
    found = []
    for path in (folder / f"{name}.png" for name in names):
        if not path.is_file():
            continue
        with Image.open(path) as image:
            picture = image.convert("RGB")
        picture.thumbnail((_MAX_WIDTH, 10 * _MAX_WIDTH))
        buffer = io.BytesIO()
        picture.quantize(128).save(buffer, format="PNG", optimize=True)
        found.append(Picture(path.stem, data_uri(buffer, "png")))
    return found


def ledger_section(entries: Sequence[LedgerEntry]) -> Section:
    """Readings of the test part, and protocols fixed for it, from the ledger."""
    title = "Readings of the test part"
    if not entries:
        lead = "No ledger was found beside the split, the ensemble or its members: how often it was read is unknown."
        return Section(title, lead, [], [])
    readings = [each for each in entries if each.kind == "reading"]
    without = sum(each.protocol is None for each in readings)
    lead = f"Read {len(readings)} times as far as the ledger tells, {without} of them without a protocol fixed before."
    kinds = {"reading": "read", "protocol": "protocol fixed"}
    rows: Rows = [
        [
            each.when,
            kinds[each.kind],
            each.command,
            ", ".join(each.members),
            each.sha256[:12],
            (each.protocol or "–")[:12],
        ]
        for each in entries
    ]
    headings = ("when (UTC)", "what", "command", "members that vote", "SHA-256 of the model", "of the protocol")
    return Section(title, lead, [Table("ledger", "Ledger of the test part", headings, rows)], [])


def explanations_section(folder: Path, *, samples: bool) -> Section | None:
    """Section on the checks of saliency maps; None if the folder contains neither checks nor figures.

    Args:
        folder: Folder written by `explain`.
        samples: Whether to show photographs.

    Raises:
        DataError: The explanations.json in the folder is invalid.
    """
    figures = ["randomisation", "deletion_insertion", "on_lesion"]  # contain no photographs
    if samples:
        figures += sorted(path.stem for path in folder.glob("*.png") if path.stem not in figures)
    pictures, path = read_pictures(folder, figures), folder / "explanations.json"
    if not path.is_file():
        return Section("Explanations", "", [], pictures) if pictures else None
    found = read_results(path, ("part", "images_judged", "lesions_judged"), command="explain split=val")
    lead = (
        "Grad-CAM maps of the predicted diagnosis, averaged over the members, checked on "
        f"{found['images_judged']} images of {found['lesions_judged']} lesions of the {PARTS[found['part']]} part."
    )
    results = [
        _compare_orders(Estimate.from_dict(found[kind]["area_less_random"]), kind)
        for kind in ("deletion", "insertion")
        if kind in found
    ]
    if randomised := _randomised(found):
        outcome, sentence = randomisation_verdict(randomised)
        results.insert(0, (outcome == "passes", sentence))
    strengths, weaknesses = ([text for good, text in results if good is kind] for kind in (True, False))
    return Section("Explanations", lead, [_checks_table(found)], pictures, strengths, weaknesses)


def _randomised(found: Mapping[str, Any]) -> dict[str, Estimate]:
    """By member, the rank correlation of its maps after the randomisation of all weights."""
    members = found.get("randomisation", {}).get("members", {})
    return estimates({name: steps[-1]["correlation"] for name, steps in members.items()})


_OVERLAP = {
    "peak_inside": "maps whose maximum lies in the lesion",
    "energy_inside": "share of the map in the lesion",
    "lesion_area": "lesion's share of the image, for comparison",
}


def _checks_table(found: Mapping[str, Any]) -> Table:
    judged = {
        f"{name}, all weights randomised: rank correlation with the trained map": ("randomisation", each)
        for name, each in _randomised(found).items()
    }
    judged |= {
        f"{kind}: area minus that of random order ({better} is better)": (
            kind,
            Estimate.from_dict(found[kind]["area_less_random"]),
        )
        for kind, better in (("deletion", "lower"), ("insertion", "higher"))
        if kind in found
    }
    lesion = found.get("lesion") or {}
    rows: Rows = [[title, each, verdict(kind, each)] for title, (kind, each) in judged.items()]
    rows += [[title, Estimate.from_dict(lesion[name]), ""] for name, title in _OVERLAP.items() if name in lesion]
    notes = [
        "Randomised weights (Adebayo et al. 2018): the check passes where the whole interval lies within "
        f"{UNRELATED} of 0, and fails where it lies beyond. Deletion and insertion: it passes where the interval lies "
        "on the better side of 0, and fails where it lies on the other."
    ]
    notes += [] if lesion else ["Not checked against lesion masks: none were given."]
    return Table("explanations", "Checks of the saliency maps", ("check", "value", "verdict"), rows, notes)


def _compare_orders(area: Estimate, kind: str) -> tuple[bool | None, str]:
    """Whether deletion or insertion in the order of the maps beats random order, with a sentence; None: no interval."""
    if area.low is None or area.high is None:
        return None, ""
    replaced, verb, sign = ("blurred", "fall", -1) if kind == "deletion" else ("restored", "rise", 1)
    low, high = sorted((sign * area.low, sign * area.high))
    result = (
        f"{verb}s faster" if low > 0 else f"{verb}s more slowly" if high < 0 else f"does not {verb} measurably faster"
    )
    return low > 0, (
        f"When pixels are {replaced} in the order of the maps, the probability {result} than in random order "
        f"(difference in area {change(area)})."
    )


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
    tables, leads, strengths, weaknesses = list[Table](), list[str](), list[str](), list[str]()
    for path, part in zip(paths, parts, strict=True):
        found = read_results(path, ("images", "lesions", "numbers"), command="evaluate")
        numbers = estimates(found["numbers"])
        leads.append(f"{counted(found['images'], 'image')} of {counted(found['lesions'], 'lesion')} ({part}).")
        tables += [*_metrics(found, f"external_{folder.name}_{part}", part, test.taxonomy), *_decisions(folder, part)]
        if about := found.get("external"):
            tables += filter(None, [populations_table(folder, about, test.taxonomy)])
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


def populations_table(folder: Path, about: dict[str, Any], taxonomy: Taxonomy = HAM10000) -> Table | None:
    """Shares of the diagnoses and medians of measures in both populations; None if they were not compared.

    Args:
        folder: Folder written by `evaluate external.images=…`.
        about: Description of the source from its results.
        taxonomy: The diagnoses.
    """
    path = folder / "populations.json"
    if not path.exists():
        return None
    found = read_results(path, ("populations", "apart"), command="evaluate")
    both, distances = list(found["populations"].values()), found["apart"]
    names = {each.code: each.name for each in taxonomy.diagnoses}
    rows: Rows = [
        [f"share of {names.get(code, code)}", *(one["diagnoses"][code]["share"] for one in both), ""]
        for code in both[0]["diagnoses"]
    ]
    rows.append(["all diagnoses", "", "", distances["diagnoses"]])
    rows += [
        [f"median {name}", *((one[name] or {}).get("median") for one in both), distances[name]] for name in _MEASURES
    ]
    headings = ("property", *found["populations"], "distance, 0 to 1")
    return Table(f"external_{folder.name}_populations", "Both populations", headings, rows, _notes(about))


def _metrics(found: dict[str, Any], name: str, part: str, taxonomy: Taxonomy) -> Iterator[Table]:
    columns = {"before calibration": estimates(found["numbers"])}
    if found.get("calibrated"):
        columns["after calibration"] = estimates(found["calibrated"]["numbers"])
    rows: Rows = [[title, *(numbers[metric] for numbers in columns.values())] for metric, title in HEADLINE.items()]
    yield Table(name, f"Main results ({part})", ("metric", *columns), rows)
    own = columns["before calibration"]
    codes = [name.removeprefix("recall_") for name in own if name.startswith("recall_")]
    if codes and all(f"auroc_{code}" in own for code in codes):
        names = {each.code: each.name for each in taxonomy.diagnoses}
        rows = [[names.get(code, code), own[f"recall_{code}"], own[f"auroc_{code}"]] for code in codes]
        title = f"Results by diagnosis ({part})"
        yield Table(f"{name}_diagnoses", title, ("diagnosis", "sensitivity", "AUROC"), rows)


def _decisions(folder: Path, part: str) -> Iterator[Table]:
    path = folder / f"decisions_{part}.json"
    if not path.is_file():
        return
    points = read_results(path, ("operating_points",), command="evaluate")["operating_points"]
    if isinstance(points, list):
        metrics = [(point, point.get("prevalence"), estimates(point["numbers"])) for point in points]
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
