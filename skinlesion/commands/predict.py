"""`skinlesion predict`: images and what is known about the patient to probabilities."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.inference import PredictConfig
from skinlesion.errors import DataError, counted, printable

if TYPE_CHECKING:
    from skinlesion.inference.members import Facts
    from skinlesion.inference.predictions import Predictions
    from skinlesion.inference.predictor import Predictor

log = logging.getLogger(__name__)

NOTE = "research use only, not a medical device"


def run(config: PredictConfig) -> None:
    """Print a table for people, or CSV or JSON for programs, with a row for each readable image; or write it to `out`.

    Raises:
        SkinlesionError: The model cannot be used, a fact is not known to it, or no image can be read.
    """
    from skinlesion.files import write_text
    from skinlesion.inference.inputs import check_facts, image_listing
    from skinlesion.inference.predictor import Predictor

    place = Path(str(config.image or config.images)).expanduser()
    model = Predictor.from_config(config)
    given = {"age": config.age, "sex": config.sex, "localization": config.localization, **config.fact}
    patient = check_facts(model.encoder, given)
    listing = image_listing(place)
    table, said = _read_table(config, listing.images, model)
    found, unreadable = _predict(model, {path: table.get(path, patient) for path in listing.images}, config)
    for message in unreadable:
        log.warning("%s", message)
    if found is None:
        raise DataError(f"{place}: no image can be read ({len(unreadable):,} tried)")
    rows, kind = records(found), config.format
    if config.out and kind == "table":
        kind = "json" if config.out.endswith(".json") else "csv"
    if kind == "table":
        show(rows)
        return
    passed_over = [str(path) for path in listing.passed_over]
    answer = {"predictions": rows, "unreadable": unreadable, "passed_over": passed_over, **said, "note": NOTE}
    text = json.dumps(answer, indent=2, allow_nan=False) + "\n" if kind == "json" else _as_csv(rows)
    if config.out is None:
        print(text, end="")
    else:
        write_text(Path(config.out), text)
        log.info("%s: %s", counted(len(rows), "image"), config.out)


def _read_table(
    config: PredictConfig, images: list[Path], model: "Predictor"
) -> "tuple[dict[Path, Facts], dict[str, list[str]]]":
    """Facts by image from `facts`; and, for JSON, the images and rows that have no counterpart."""
    if config.facts is None:
        return {}, {}
    from skinlesion.inference.facts_table import read_facts  # needs pandas, which a bundle alone does without

    found = read_facts(Path(config.facts).expanduser(), images, model.encoder)
    return found.facts, {"without_facts": found.without_row, "rows_without_image": found.without_image}


def _predict(
    model: "Predictor", facts: "dict[Path, Facts]", config: PredictConfig
) -> "tuple[Predictions | None, list[str]]":
    """A batch of files at a time, each fitted once it is read: neither many nor large images need more memory.

    Args:
        model: Predicts.
        facts: Of each file; age and sex that are unknown are those of a DICOM file.
        config: Batch size and calibration.

    Returns:
        The predictions for the files that can be read, and a message for each of the others.
    """
    from skinlesion.inference.inputs import to_array, with_file_facts
    from skinlesion.inference.predictions import Predictions
    from skinlesion.terminal import track

    files, parts, unreadable, size = list(facts), [], [], config.loader.batch_size
    for start in track(range(0, len(files), size), "predicting", -(-len(files) // size)):
        images, known = {}, []
        for path in files[start : start + size]:
            try:
                images[str(path)] = model.prepare(to_array(path))
                known.append(with_file_facts(model.encoder, path, facts[path]))
            except DataError as error:
                unreadable.append(str(error))
        if images:
            prepared, names = list(images.values()), list(images)
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


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV, a column for each diagnosis; a name that a spreadsheet would run gets an apostrophe."""
    import pandas as pd

    from skinlesion.files import escape_formulas

    flat = []
    for row in rows:
        plain = {key: value for key, value in row.items() if key not in ("uncalibrated", "out_of_distribution")}
        plain |= plain.pop("probabilities")
        plain |= {"prediction_set": " ".join(row["prediction_set"])} if "prediction_set" in row else {}
        flat.append(plain | {f"ood_{key}": value for key, value in row.get("out_of_distribution", {}).items()})
    return escape_formulas(pd.DataFrame(flat)).to_csv(index=False, lineterminator="\n")


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as a table for people; at 80 columns nothing but names is wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"Probabilities ({NOTE})", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    shown.add_column("image", overflow="fold", min_width=12)
    shown.add_column("diagnosis", min_width=9)
    for code in rows[0]["probabilities"]:
        shown.add_column(code, justify="right", no_wrap=True)
    wanted = rows[0].get("coverage_wanted")
    if wanted is not None:
        shown.add_column(f"set ({wanted:.0%})")
    notes = ["! unlike the training images: do not rely on its probabilities"] if any(map(_is_ood, rows)) else []
    if any(row["probabilities"][row["predicted"]] < max(row["probabilities"].values()) for row in rows):
        notes.append("the vote decides the diagnosis; after calibration another one can be more probable")
    shown.caption = "\n".join(notes) or None
    for row in rows:
        values = [f"{value:.3f}" for value in row["probabilities"].values()]
        sets = [] if wanted is None else [" ".join(row["prediction_set"])]
        name = printable(f"{'! ' if _is_ood(row) else ''}{Path(row['image']).name}")
        category = "" if row["category"] == "unknown" else f" ({row['category']})"
        shown.add_row(name, f"{row['name']}{category}", *values, *sets)
    Console(markup=False, highlight=False, emoji=False).print(shown)


def _is_ood(row: dict[str, Any]) -> bool:
    return bool(row.get("out_of_distribution", {}).get("flag", False))
