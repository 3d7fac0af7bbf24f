"""Sections of a report made from the results of other commands; the section on explanations."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from skinlesion.errors import DataError
from skinlesion.metrics.estimate import Estimate
from skinlesion.studies.report.figures import captions, data_uri
from skinlesion.studies.report.formatting import change
from skinlesion.studies.report.tables import Rows, Table

PARTS = {"train": "training", "val": "validation", "test": "test"}
_MAX_WIDTH = 1400  # pixels of a picture on the page


@dataclass(frozen=True)
class Picture:
    """A figure drawn by another command."""

    title: str
    caption: str
    alt: str  # alternative text
    uri: str  # the picture as a data URI


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


def estimates(numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Estimate]:
    """Estimates by name, from JSON."""
    return {name: Estimate.from_dict(each) for name, each in numbers.items()}


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
        words = captions().get(path.stem) or {"title": path.stem, "caption": "", "alt": f"Figure {path.stem}."}
        found.append(Picture(words["title"], words["caption"], words["alt"], data_uri(buffer, "png")))
    return found


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
    strengths, weaknesses = ([text for good, text in results if good is kind] for kind in (True, False))
    return Section("Explanations", lead, [_checks_table(found)], pictures, strengths, weaknesses)


def _checks_table(found: Mapping[str, Any]) -> Table:
    rows: Rows = [
        [f"{name}, all weights randomised: rank correlation with the trained map (ideal: 0)",
         Estimate.from_dict(steps[-1]["correlation"])]
        for name, steps in found.get("randomisation", {}).get("members", {}).items()
    ]  # fmt: skip
    areas = {"deletion": "lower", "insertion": "higher"}
    rows += [
        [f"{kind}: area minus that of random order ({better} is better)",
         Estimate.from_dict(found[kind]["area_less_random"])]
        for kind, better in areas.items() if kind in found
    ]  # fmt: skip
    overlap = {
        "peak_inside": "maps whose maximum lies in the lesion",
        "energy_inside": "share of the map in the lesion",
        "lesion_area": "lesion's share of the image, for comparison",
    }
    lesion = found.get("lesion") or {}
    rows += [[title, Estimate.from_dict(lesion[name])] for name, title in overlap.items() if name in lesion]
    notes = [] if lesion else ["Not checked against lesion masks: none were given."]
    return Table("explanations", "Checks of the saliency maps", ("check", "value"), rows, notes)


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
