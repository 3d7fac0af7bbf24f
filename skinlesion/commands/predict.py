"""`skinlesion predict`: images and what is known about the patient to probabilities."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.inference import PredictConfig
from skinlesion.errors import DataError, printable

if TYPE_CHECKING:
    from skinlesion.inference.members import Facts
    from skinlesion.inference.predictions import Predictions
    from skinlesion.inference.predictor import Predictor

log = logging.getLogger(__name__)

NOTE = "research use only, not a medical device"


def run(config: PredictConfig) -> None:
    """Print a table for people, or CSV or JSON for programs, with a row for each readable image.

    Raises:
        SkinlesionError: The model cannot be used, a fact is not known to it, or no image can be read.
    """
    from skinlesion.inference.inputs import check_facts, image_paths
    from skinlesion.inference.predictor import Predictor

    model = Predictor.from_config(config)
    given = {"age": config.age, "sex": config.sex, "localization": config.localization, **config.fact}
    facts = check_facts(model.encoder, given)
    found, unreadable = _predict(model, image_paths(Path(config.image)), facts, config)
    for message in unreadable:
        log.warning("%s", message)
    if found is None:
        raise DataError(f"image={config.image}: none of {len(unreadable)} images can be read")
    rows = records(found)
    if config.format == "json":
        print(json.dumps({"predictions": rows, "unreadable": unreadable, "note": NOTE}, indent=2, allow_nan=False))
    elif config.format == "csv":
        _write_csv(rows)
    else:
        show(rows)


def _predict(
    model: "Predictor", files: list[Path], facts: "Facts", config: PredictConfig
) -> "tuple[Predictions | None, list[str]]":
    """A batch of files at a time, each fitted once it is read: neither many nor large images need more memory.

    Returns:
        The predictions for the files that can be read, and a message for each of the others.
    """
    from skinlesion.data.image_io import read
    from skinlesion.inference.predictions import Predictions
    from skinlesion.terminal import track

    parts, unreadable, size = [], [], config.loader.batch_size
    for start in track(range(0, len(files), size), "predicting", -(-len(files) // size)):
        images = {}
        for path in files[start : start + size]:
            try:
                images[str(path)] = model.prepare(read(path))
            except DataError as error:
                unreadable.append(str(error))
        if images:
            prepared, names, known = list(images.values()), list(images), [facts] * len(images)
            parts.append(model.predict_prepared(prepared, known, names=names, calibrated=config.calibrated, batch=size))
    return (Predictions.concatenate(parts) if parts else None), unreadable


def records(found: "Predictions") -> list[dict[str, Any]]:
    """Each row as plain data for JSON, with what else the model gives: calibration, prediction set, OOD flag."""
    by_code = {diagnosis.code: diagnosis for diagnosis in found.taxonomy.diagnoses}
    rows = []
    for place, image in enumerate(found.image_id):
        diagnosis = by_code[found.predicted[place]]
        row: dict[str, Any] = {"image": image, "predicted": diagnosis.code, "name": diagnosis.name}
        row |= {"category": diagnosis.category, "probabilities": _by_code(found, found.probabilities[place])}
        if found.uncalibrated is not None:
            row["uncalibrated"] = _by_code(found, found.uncalibrated[place])
        if found.prediction_set is not None and found.coverage is not None:
            held = found.prediction_set[place]
            row["prediction_set"] = [code for code, inside in zip(by_code, held, strict=True) if inside]
            row["coverage_wanted"] = round(found.coverage, 6)
        if found.ood is not None and found.ood_score is not None:
            score = round(float(found.ood_score[place]), 4)
            row["out_of_distribution"] = {"flag": bool(found.ood[place]), "score": score}
        rows.append(row)
    return rows


def _by_code(found: "Predictions", values: Sequence[float]) -> dict[str, float]:
    return {code: round(float(value), 6) for code, value in zip(found.taxonomy.codes, values, strict=True)}


def _write_csv(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as CSV, a column for each diagnosis; a name that a spreadsheet would run gets an apostrophe."""
    import pandas as pd

    from skinlesion.files import escape_formulas

    flat = []
    for row in rows:
        plain = {key: value for key, value in row.items() if key not in ("uncalibrated", "out_of_distribution")}
        plain |= plain.pop("probabilities")
        plain |= {"prediction_set": " ".join(row["prediction_set"])} if "prediction_set" in row else {}
        flat.append(plain | {f"ood_{key}": value for key, value in row.get("out_of_distribution", {}).items()})
    print(escape_formulas(pd.DataFrame(flat)).to_csv(index=False, lineterminator="\n"), end="")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table for people; at 80 columns nothing but names is wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"Probabilities ({NOTE})", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    shown.add_column("image", overflow="fold", min_width=12)
    shown.add_column("likeliest", min_width=9)
    for code in rows[0]["probabilities"]:
        shown.add_column(code, justify="right", no_wrap=True)
    wanted = rows[0].get("coverage_wanted")
    if wanted is not None:
        shown.add_column(f"set ({wanted:.0%})")
    if any(row.get("out_of_distribution", {}).get("flag") for row in rows):
        shown.caption = "! unlike the training images: do not rely on its probabilities"
    for row in rows:
        is_ood = row.get("out_of_distribution", {}).get("flag", False)
        values = [f"{value:.3f}" for value in row["probabilities"].values()]
        sets = [] if wanted is None else [" ".join(row["prediction_set"])]
        name = printable(f"{'! ' if is_ood else ''}{Path(row['image']).name}")
        shown.add_row(name, f"{row['name']} ({row['category']})", *values, *sets)
    Console(markup=False, highlight=False, emoji=False).print(shown)
