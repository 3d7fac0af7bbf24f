"""`skinlesion predict`: images, and what is known of the patient, to probabilities."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.predict import PredictConfig
from skinlesion.errors import ConfigError, DataError
from skinlesion.launch import launch

if TYPE_CHECKING:
    import pandas as pd

    from skinlesion.learning.checkpoint import TrainedModel
    from skinlesion.learning.ensemble import EnsembleFile

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def run(config: PredictConfig) -> None:
    """Print a table for people, or JSON for programs, with a row for each readable image.

    Raises:
        SkinlesionError: The model cannot be used, a fact is not known to it, or no image can be read.
    """
    models, ensemble, tta = _models(config)
    _check_facts(models[0], config)
    table, unreadable = _diagnose(models, _files(Path(config.image)), config, tta=tta)
    for message in unreadable:
        log.warning("%s", message)
    if table.empty:
        raise DataError(f"image={config.image}: none of {len(unreadable)} images can be read")
    answers = _answers(table, ensemble if config.calibrated else None)
    if config.format == "json":
        print(json.dumps({"predictions": answers, "unreadable": unreadable, "note": NOTE}, indent=2))
    else:
        _show(answers)


NOTE = "research use only, not a medical device"


def _models(config: PredictConfig) -> tuple[list["TrainedModel"], "EnsembleFile | None", str]:
    from skinlesion.learning.checkpoint import load_model
    from skinlesion.learning.ensemble import read_ensemble

    if config.checkpoint is not None:
        return [load_model(Path(config.checkpoint))], None, config.tta or "none"
    ensemble = read_ensemble(Path(str(config.ensemble)))
    return ensemble.models(), ensemble, config.tta or ensemble.tta


def _check_facts(model: "TrainedModel", config: PredictConfig) -> None:
    known = {"sex": model.encoder.sexes, "localization": model.encoder.localizations}
    for fact, values in known.items():
        given = getattr(config, fact)
        if given is not None and given.strip().lower() not in values:
            raise ConfigError(f"{fact}={given}: not known to the model; expected one of {', '.join(values)}")


def _files(image: Path) -> list[Path]:
    if image.is_file():
        return [image]
    if not image.is_dir():
        raise DataError(f"image={image}: no such file or folder")
    files = sorted(path for path in image.iterdir() if path.suffix.lower() in EXTENSIONS)
    if not files:
        raise DataError(f"image={image}: no image in this folder; expected files ending in {', '.join(EXTENSIONS)}")
    return files


def _diagnose(
    models: list["TrainedModel"], files: list[Path], config: PredictConfig, *, tta: str
) -> tuple["pd.DataFrame", list[str]]:
    """A batch of files at a time, so that a large folder needs no more memory than a small one."""
    import numpy as np
    import pandas as pd

    from skinlesion.diagnoses import CODES
    from skinlesion.learning.inference import device_of, diagnose
    from skinlesion.progress import track

    facts = {"age": config.age, "sex": config.sex, "localization": config.localization}
    device, size = device_of(config.accelerator), config.loader.batch_size
    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    read: list[str] = []
    unreadable: list[str] = []
    votes = [np.empty((0, len(CODES)), np.float32)]
    for chunk in track(chunks, "predicting", len(chunks)):
        images, broken = _decode(chunk, {model.spec.size for model in models})
        read += [str(path) for path in images]
        unreadable += broken
        if images:
            members = [
                diagnose(model, _stacked(images, model.spec.size), facts=facts, device=device, tta=tta)
                for model in models
            ]
            votes.append(np.mean(members, axis=0))  # (B, K)
    table = pd.DataFrame(np.concatenate(votes), columns=list(CODES))
    table.insert(0, "image", read)
    return table, unreadable


def _stacked(images: dict[Path, dict[tuple[int, int], Any]], size: tuple[int, int]) -> Any:
    import numpy as np

    return np.stack([decoded[size] for decoded in images.values()])  # (B, H, W, 3)


def _decode(files: list[Path], sizes: set[tuple[int, int]]) -> tuple[dict[Path, dict[tuple[int, int], Any]], list[str]]:
    from skinlesion.data.pixels import decode

    images: dict[Path, dict[tuple[int, int], Any]] = {}
    unreadable: list[str] = []
    for path in files:
        try:
            images[path] = {size: decode(path, size) for size in sizes}
        except DataError as error:
            unreadable.append(str(error))
    return images, unreadable


def _answers(table: "pd.DataFrame", ensemble: "EnsembleFile | None") -> list[dict[str, Any]]:
    """A plain row an image; of a calibrated ensemble with its prediction set and the probabilities before."""
    from skinlesion.diagnoses import CODES, DIAGNOSES
    from skinlesion.evaluation.conformal import prediction_sets
    from skinlesion.evaluation.scaling import calibrated

    given = table[list(CODES)].to_numpy()
    values = calibrated(given, None if ensemble is None else ensemble.calibration)
    rows = []
    for place, image in enumerate(table["image"]):
        diagnosis = DIAGNOSES[int(values[place].argmax())]
        answer = {"predicted": diagnosis.code, "name": diagnosis.name, "category": diagnosis.category}
        row = {"image": image, **answer, "probabilities": _by_code(values[place])}
        if ensemble is not None and ensemble.calibration is not None:
            row |= {"uncalibrated": _by_code(given[place])}
        if ensemble is not None and ensemble.conformal:
            fitted = ensemble.conformal[0]
            held = prediction_sets(values[place : place + 1], fitted)[0]
            codes = [code for code, inside in zip(CODES, held, strict=True) if inside]
            row |= {"prediction_set": codes, "coverage_wanted": round(1 - fitted["alpha"], 6)}
        rows.append(row)
    return rows


def _by_code(values: Any) -> dict[str, float]:
    from skinlesion.diagnoses import CODES

    return {code: round(float(value), 6) for code, value in zip(CODES, values, strict=True)}


def _show(answers: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from skinlesion.diagnoses import CODES

    shown = Table(title=f"Probabilities ({NOTE})", title_justify="left")
    for heading in ("image", "likeliest", "category"):
        shown.add_column(heading)
    for code in CODES:
        shown.add_column(code, justify="right")
    wanted = answers[0].get("coverage_wanted")
    if wanted is not None:
        shown.add_column(f"set ({wanted:.0%})")
    for row in answers:
        values = [f"{row['probabilities'][code]:.3f}" for code in CODES]
        sets = [] if wanted is None else [" ".join(row["prediction_set"])]
        shown.add_row(Path(row["image"]).name, row["name"], row["category"], *values, *sets)
    Console(width=140).print(shown)


if __name__ == "__main__":
    launch("predict", PredictConfig, run)
