"""From probabilities to what a person or a program is told of each image. Needs numpy, and rich for the table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skinlesion.inference.calibration import calibrated
from skinlesion.inference.conformal import prediction_sets
from skinlesion.taxonomy import CODES, DIAGNOSES

NOTE = "research use only, not a medical device"


@dataclass(frozen=True)
class Votes:
    """What models say of N images, before it is calibrated."""

    probabilities: npt.NDArray[np.floating]  # (N, K)
    novelty: npt.NDArray[np.floating] | None = None  # (N,), see `novelty.score`; None: not known of training images
    novel: npt.NDArray[np.bool_] | None = None  # (N,), whether it looks like none of them


def joined(parts: Sequence[Votes]) -> Votes:
    """The votes on several batches, of the same models, as one."""
    probabilities = np.concatenate([part.probabilities for part in parts])
    scores = [part.novelty for part in parts if part.novelty is not None]
    flags = [part.novel for part in parts if part.novel is not None]
    if not scores:
        return Votes(probabilities)
    return Votes(probabilities, np.concatenate(scores), np.concatenate(flags))


def as_rows(
    images: Sequence[str],
    votes: Votes,
    *,
    calibration: dict[str, Any] | None,
    conformal: Sequence[dict[str, Any]] | None,
) -> list[dict[str, Any]]:
    """A plain row an image; with the probabilities before calibration, the prediction set and the novelty, where known.

    Args:
        images: The names of N images.
        votes: On them.
        calibration: See `scaling.calibrated`.
        conformal: See `conformal.fit`; the first is in use.
    """
    values = calibrated(votes.probabilities, calibration)
    rows = []
    for place, image in enumerate(images):
        diagnosis = DIAGNOSES[int(values[place].argmax())]
        answer = {"predicted": diagnosis.code, "name": diagnosis.name, "category": diagnosis.category}
        row = {"image": image, **answer, "probabilities": _by_code(values[place])}
        if calibration is not None:
            row |= {"uncalibrated": _by_code(votes.probabilities[place])}
        if conformal:
            held = prediction_sets(values[place : place + 1], conformal[0])[0]
            codes = [code for code, inside in zip(CODES, held, strict=True) if inside]
            row |= {"prediction_set": codes, "coverage_wanted": round(1 - conformal[0]["alpha"], 6)}
        if votes.novelty is not None and votes.novel is not None:
            score = round(float(votes.novelty[place]), 4)
            row |= {"out_of_distribution": {"flag": bool(votes.novel[place]), "score": score}}
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
    judged = "out_of_distribution" in rows[0]
    if judged:
        shown.add_column("like dermoscopy")
        if any(row["out_of_distribution"]["flag"] for row in rows):
            shown.caption = "not like dermoscopy: the image is unlike those of training; its probabilities mean nothing"
    for row in rows:
        values = [f"{row['probabilities'][code]:.3f}" for code in CODES]
        sets = [] if wanted is None else [" ".join(row["prediction_set"])]
        novel = ["no" if row["out_of_distribution"]["flag"] else "yes"] if judged else []
        shown.add_row(Path(row["image"]).name, row["name"], row["category"], *values, *sets, *novel)
    Console(width=140).print(shown)


def _by_code(values: npt.NDArray[np.floating]) -> dict[str, float]:
    return {code: round(float(value), 6) for code, value in zip(CODES, values, strict=True)}
