"""What other verbs left beside the ensemble: robustness, explanations, evaluations on other data."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from skinlesion.errors import DataError
from skinlesion.reporting.other_data import compared
from skinlesion.reporting.tables import HEADLINE, Table

_WITHOUT_PHOTOGRAPHS = ("randomisation", "deletion_insertion", "on_lesion")
_CHECKS = {
    "deletion": "deletion: area by the map less that in random order (lower is better)",
    "insertion": "insertion: area by the map less that in random order (higher is better)",
}
_ON_LESION = {
    "peak_inside": "maps whose peak lies in the lesion",
    "energy_inside": "share of the map that lies in the lesion",
    "lesion_area": "share of the image that is lesion, for comparison",
}
_WIDEST = 1400  # pixels of a picture in the page
_LONGEST = 60  # rows of a table in the page


@dataclass(frozen=True)
class Extra:
    """What one folder adds to the report."""

    title: str
    folder: Path
    tables: list[Table]
    pictures: list[tuple[str, str]]  # what it shows, data URI


def robustness(folder: Path, *, given: bool) -> Extra | None:
    """Table and curves of `skinlesion robustness`; None where no such folder is there or given."""
    if not _there(folder, "robustness", given=given):
        return None
    pictures = [_picture(path) for path in sorted(folder.glob("*.png"))]
    return Extra("Robustness and shortcuts", folder, [_table(path) for path in sorted(folder.glob("*.csv"))], pictures)


def explanations(folder: Path, *, given: bool, samples: bool) -> Extra | None:
    """Checks of `skinlesion explain`, and, where `samples` allows photographs, its overlays."""
    if not _there(folder, "explanations", given=given):
        return None
    shown = [path for path in sorted(folder.glob("*.png")) if samples or path.stem in _WITHOUT_PHOTOGRAPHS]
    path = folder / "explanations.json"
    tables = [_checks(json.loads(path.read_text(encoding="utf-8")))] if path.is_file() else []
    return Extra("Explanations", folder, tables, [_picture(each) for each in shown]) if shown or tables else None


def external(folder: Path) -> Extra:
    """The numbers of `skinlesion evaluate` on other data.

    Raises:
        DataError: The folder holds none.
    """
    found = sorted(folder.glob("metrics_*.json"))
    if not found:
        raise DataError(f"external={folder}: no metrics_*.json there; give a folder that `evaluate` left")
    tables = []
    for path in found:
        measured = _read(path)
        part = path.stem.removeprefix("metrics_")
        numbers = [("as voted", measured), ("calibrated", measured.get("calibrated"))]
        shown = [(name, each["numbers"]) for name, each in numbers if each]
        rows = [[title, *(each[key] for _, each in shown)] for key, title in HEADLINE.items()]
        title = f"{measured['images']} images of {measured['lesions']} lesions ({part})"
        tables.append(Table(f"external_{folder.name}_{part}", title, ("number", *(name for name, _ in shown)), rows))
        about = measured.get("external", {})
        tables += [each for each in [compared(folder, about)] if each is not None and about]
    names = ("population", "reliability")
    pictures = [_picture(path) for path in sorted(folder.glob("*.png")) if path.stem.startswith(names)]
    return Extra(f"Other data: {folder.name}", folder, tables, pictures)


def _checks(found: dict[str, Any]) -> Table:
    """Whether the maps follow the model, and whether they lie on the lesion."""
    rows: list[list[Any]] = [
        [title, found[name]["area_less_random"]] for name, title in _CHECKS.items() if name in found
    ]
    lesion = found.get("lesion") or {}
    rows += [[title, lesion[name]] for name, title in _ON_LESION.items() if name in lesion]
    images, lesions = found.get("images_judged"), found.get("lesions_judged")
    notes = [f"On {images} images of {lesions} lesions of the {found.get('part')} part."]
    return Table("explanations", "Sanity of the explanations", ("check", "number"), rows, notes)


def _read(path: Path) -> dict[str, Any]:
    try:
        measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}); run `evaluate` again") from error
    lacking = [key for key in ("images", "lesions", "numbers") if key not in measured]
    if lacking:
        raise DataError(f"{path}: no {', '.join(lacking)}; it is of an older version: run `evaluate` again")
    return measured


def _there(folder: Path, key: str, *, given: bool) -> bool:
    if given and not folder.is_dir():
        raise DataError(f"{key}={folder}: no such folder; give the one that `skinlesion {key}` left, or null")
    return folder.is_dir()


def _table(path: Path) -> Table:
    frame = pd.read_csv(path)
    rows = frame.head(_LONGEST).astype(object).where(frame.notna(), None).to_numpy().tolist()
    more = len(frame) - _LONGEST
    notes = [f"{more} more rows are in {path.name}."] if more > 0 else []
    return Table(path.stem, path.stem.replace("_", " "), [str(name) for name in frame.columns], rows, notes)


def _picture(path: Path) -> tuple[str, str]:
    with Image.open(path) as image:
        image.load()
        shown = image.convert("RGB")
    shown.thumbnail((_WIDEST, 10 * _WIDEST))
    buffer = io.BytesIO()
    shown.quantize(128).save(buffer, format="PNG", optimize=True)
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return path.stem.replace("_", " "), f"data:image/png;base64,{coded}"
