"""`skinlesion predict`: images, and what is known of the patient, to probabilities."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.config.predict import PredictConfig
from skinlesion.errors import ConfigError, DataError

if TYPE_CHECKING:
    from skinlesion.data.image_io import Image
    from skinlesion.data.metadata import MetadataEncoder
    from skinlesion.inference.answers import Votes

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

Size = tuple[int, int]  # (height, width) in pixels


@dataclass(frozen=True)
class Voting:
    """What answers: models in PyTorch, or a bundle, which needs no torch."""

    encoder: "MetadataEncoder"
    sizes: set[Size]  # to which images are fitted
    vote: "Callable[[list[dict[Size, Image]]], Votes]"  # of B images, at each size
    calibration: dict[str, Any] | None = None
    conformal: list[dict[str, Any]] | None = None


def run(config: PredictConfig) -> None:
    """Print a table for people, or JSON for programs, with a row for each readable image.

    Raises:
        SkinlesionError: The model cannot be used, a fact is not known to it, or no image can be read.
    """
    from skinlesion.inference.answers import NOTE, as_rows, joined, show

    voting = _models(config) if config.bundle is None else _bundle(config)
    _check_facts(voting.encoder, config)
    read, parts, unreadable = _diagnose(voting, _files(Path(config.image)), batch=config.loader.batch_size)
    for message in unreadable:
        log.warning("%s", message)
    if not parts:
        raise DataError(f"image={config.image}: none of {len(unreadable)} images can be read")
    fitted = (voting.calibration, voting.conformal) if config.calibrated else (None, None)
    rows = as_rows(read, joined(parts), calibration=fitted[0], conformal=fitted[1])
    if config.format == "json":
        print(json.dumps({"predictions": rows, "unreadable": unreadable, "note": NOTE}, indent=2))
    else:
        show(rows)


def _models(config: PredictConfig) -> Voting:
    import numpy as np

    from skinlesion.inference import ood
    from skinlesion.inference.answers import Votes
    from skinlesion.inference.ensemble import read_ensemble
    from skinlesion.inference.sample import see_patient
    from skinlesion.training.checkpoint import load_model
    from skinlesion.training.forward import device_of

    ensemble = None if config.ensemble is None else read_ensemble(Path(config.ensemble))
    models = [load_model(Path(str(config.checkpoint)))] if ensemble is None else ensemble.models()
    tta = config.tta or ("none" if ensemble is None else ensemble.tta)
    facts, device = _facts(config), device_of(config.accelerator)

    seen = None if ensemble is None else ensemble.novelty

    def vote(images: "list[dict[Size, Image]]") -> Votes:
        members = [
            see_patient(model, np.stack([image[model.spec.size] for image in images]), facts, device=device, tta=tta)
            for model in models
        ]
        mean = np.mean([member.probabilities for member in members], axis=0)  # (B, K)
        if seen is None:
            return Votes(mean)
        logits, pooled = zip(*(member.embedded for member in members), strict=True)
        scores = ood.score(seen, logits, pooled)
        return Votes(mean, scores, ood.flag(seen, scores))

    sizes = {model.spec.size for model in models}
    if ensemble is None:
        return Voting(models[0].encoder, sizes, vote)
    return Voting(models[0].encoder, sizes, vote, ensemble.calibration, ensemble.conformal)


def _bundle(config: PredictConfig) -> Voting:
    from skinlesion.deploy.runtime import Bundle
    from skinlesion.inference.answers import Votes

    bundle = Bundle.load(Path(str(config.bundle)))
    facts, about = _facts(config), bundle.about

    def vote(images: "list[dict[Size, Image]]") -> Votes:
        answer = bundle.predict([tuple(image[size] for size in bundle.sizes) for image in images], facts)
        return Votes(answer.uncalibrated, answer.novelty, answer.novel)

    return Voting(about.encoder, set(bundle.sizes), vote, about.calibration, about.conformal)


def _facts(config: PredictConfig) -> dict[str, float | str | None]:
    return {"age": config.age, "sex": config.sex, "localization": config.localization}


def _check_facts(encoder: "MetadataEncoder", config: PredictConfig) -> None:
    known = {"sex": encoder.sexes, "localization": encoder.localizations}
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


def _diagnose(voting: Voting, files: list[Path], *, batch: int) -> "tuple[list[str], list[Votes], list[str]]":
    """A batch of files at a time, so that a large folder needs no more memory than a small one.

    Returns:
        The files that can be read, what is said of each batch of them, and what is wrong with the others.
    """
    from skinlesion.progress import track

    chunks = [files[start : start + batch] for start in range(0, len(files), batch)]
    read: list[str] = []
    unreadable: list[str] = []
    votes = []
    for chunk in track(chunks, "predicting", len(chunks)):
        images, broken = _decode(chunk, voting.sizes)
        read += [str(path) for path in images]
        unreadable += broken
        if images:
            votes.append(voting.vote(list(images.values())))
    return read, votes, unreadable


def _decode(files: list[Path], sizes: set[Size]) -> "tuple[dict[Path, dict[Size, Image]], list[str]]":
    from skinlesion.data.image_io import fit, read

    images: dict[Path, dict[Size, Image]] = {}
    unreadable: list[str] = []
    for path in files:
        try:
            image = read(path)
        except DataError as error:
            unreadable.append(str(error))
        else:
            images[path] = {size: fit(image, size) for size in sizes}
    return images, unreadable
