"""From probabilities to what a person or a program is told of each image. Needs numpy, and rich for the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.diagnoses import CODES, DIAGNOSES
from skinlesion.evaluation.conformal import prediction_sets
from skinlesion.evaluation.scaling import calibrated

NOTE = "research use only, not a medical device"


def as_rows(
    images: Sequence[str],
    given: npt.NDArray[np.floating],
    *,
    calibration: dict[str, Any] | None,
    conformal: Sequence[dict[str, Any]] | None,
) -> list[dict[str, Any]]:
    """A plain row an image; of a calibrated ensemble with its prediction set and the probabilities before.

    Args:
        images: The names of N images.
        given: Uncalibrated probabilities, (N, K).
        calibration: See `scaling.calibrated`.
        conformal: See `conformal.fit`; the first is in use.
    """
    values = calibrated(given, calibration)
    rows = []
    for place, image in enumerate(images):
        diagnosis = DIAGNOSES[int(values[place].argmax())]
        answer = {"predicted": diagnosis.code, "name": diagnosis.name, "category": diagnosis.category}
        row = {"image": image, **answer, "probabilities": _by_code(values[place])}
        if calibration is not None:
            row |= {"uncalibrated": _by_code(given[place])}
        if conformal:
            held = prediction_sets(values[place : place + 1], conformal[0])[0]
            codes = [code for code, inside in zip(CODES, held, strict=True) if inside]
            row |= {"prediction_set": codes, "coverage_wanted": round(1 - conformal[0]["alpha"], 6)}
        rows.append(row)
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table for people."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"Probabilities ({NOTE})", title_justify="left")
    for heading in ("image", "likeliest", "category"):
        shown.add_column(heading)
    for code in CODES:
        shown.add_column(code, justify="right")
    wanted = rows[0].get("coverage_wanted")
    if wanted is not None:
        shown.add_column(f"set ({wanted:.0%})")
    for row in rows:
        values = [f"{row['probabilities'][code]:.3f}" for code in CODES]
        sets = [] if wanted is None else [" ".join(row["prediction_set"])]
        shown.add_row(Path(row["image"]).name, row["name"], row["category"], *values, *sets)
    Console(width=140).print(shown)


def _by_code(values: npt.NDArray[np.floating]) -> dict[str, float]:
    return {code: round(float(value), 6) for code, value in zip(CODES, values, strict=True)}
