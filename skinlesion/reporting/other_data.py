"""How images of another source differ from those of the training, as a table of the report."""

import json
from pathlib import Path
from typing import Any

from skinlesion.diagnoses import DIAGNOSES
from skinlesion.errors import DataError
from skinlesion.reporting.tables import Table

_MEDIANS = ("age", "aspect", "brightness", "contrast", "saturation")


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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        described, apart = found["populations"], found["apart"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not readable ({error}); run `evaluate` again") from error
    each = list(described.values())
    rows: list[list[Any]] = [
        [f"share of {diagnosis.name}", *(one["diagnoses"][diagnosis.code]["share"] for one in each), None]
        for diagnosis in DIAGNOSES
    ]
    rows.append(["all diagnoses", None, None, apart["diagnoses"]])
    rows += [[f"median {name}", *((one[name] or {}).get("median") for one in each), apart[name]] for name in _MEDIANS]
    headings = ("of the images", *described, "apart, 0 to 1")
    return Table(f"external_{folder.name}_populations", "Both populations", headings, rows, _notes(about))


def _notes(about: dict[str, Any]) -> list[str]:
    """What was left out and what was read as something else."""
    notes = []
    if seen := about.get("seen"):
        known = seen["by_id"] + (seen["by_hash"] or 0)
        verb = "left out" if seen["choice"] == "drop" else "judged all the same"
        notes.append(f"{known} images are among those of training or validation: {verb}.")
        notes += [f"Images are {seen['note']}."] if "note" in seen else []
    for word, each in about.get("classes", {}).items():
        if each["counts_as"] != word:
            notes.append(f"{each['images']} images of {word}: {each['counts_as']}.")
    return notes
