"""Trained models on images of another source, freed of those that they know, and compared with the training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion.config.data import LoaderConfig, SourceConfig, restore_data_config
from skinlesion.config.evaluate import ExternalConfig
from skinlesion.data.frame import read_data
from skinlesion.data.image_cache import ImageCache, open_cache
from skinlesion.data.image_statistics import ImageDescriptors, describe_images, stored_descriptors
from skinlesion.data.leakage import find_by_hash, find_by_id, parts_of_training
from skinlesion.data.metadata import UNKNOWN
from skinlesion.data.readers import LabelledData, read_labelled
from skinlesion.errors import DataError, first_five
from skinlesion.inference.predict_images import predict_images
from skinlesion.inference.predictions import Predictions
from skinlesion.studies.external.populations import Population
from skinlesion.taxonomy import CODES
from skinlesion.training.checkpoint import TrainedModel, read_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class External:
    """What came of judging images of another source."""

    table: Predictions  # predictions of the images that were judged
    facts: pd.DataFrame  # what is known of the same images
    seen: pd.DataFrame  # images that training or validation had, see `data.leakage`
    about: dict[str, Any]  # what was read, mapped, found and left out; ready for JSON
    populations: tuple[Population, Population]  # of training, and the judged images
    images: ImageCache


def judge_external(
    models: Sequence[TrainedModel],
    config: ExternalConfig,
    *,
    source: SourceConfig,
    settings: LoaderConfig,
    accelerator: str,
    tta: str,
) -> External:
    """Let models vote on images of another source.

    Args:
        models: One, or the members of an ensemble.
        config: The images and what is known of them.
        source: Where the images of the training are: they are compared with.
        settings: Of the loader.
        accelerator: As Lightning names them.
        tta: Which flips and turns of each image vote.

    Raises:
        DataError: The images or their tables cannot be used, or no image is left.
    """
    first = models[0]
    labelled = read_labelled(
        Path(str(config.labels)).expanduser(),
        images=[Path(str(config.images)).expanduser()],
        metadata=None if config.metadata is None else Path(config.metadata).expanduser(),
        classes=config.classes,
        missing_images=config.missing_images,
        extra_images=config.extra_images,
        key="external",
    )
    frame, read_as = _read_as(labelled.frame, first, config)
    known = parts_of_training(first.split)
    found = find_by_id(frame["image_id"].tolist(), known)
    frame = _without(frame, found, config)
    cache_dir = Path(source.cache_dir or first.config["data"]["cache_dir"])
    cache = open_cache(frame, size=first.spec.size, cache_dir=cache_dir)
    training, trained_on, why = _training(first, source, cache_dir)
    looks, by_look = _looked_at(frame, cache, training, known, config)
    by_look = by_look[~by_look["image_id"].isin(found["image_id"])]
    kept = _without(frame, by_look, config)
    found = pd.concat([found, by_look], ignore_index=True)
    caches = _caches(frame, {model.spec.size for model in models}, opened={first.spec.size: cache}, cache_dir=cache_dir)
    tables = [
        predict_images(model, kept, caches[model.spec.size], settings=settings, accelerator=accelerator, tta=tta)
        for model in models
    ]
    counts = {str(code): int(images) for code, images in kept["diagnosis"].value_counts().items()}
    judged = frame["image_id"].isin(kept["image_id"]).to_numpy()
    return External(
        table=Predictions.soft_vote(tables),
        facts=kept,
        seen=found,
        about={
            **_about(config, labelled, read_as),
            **_judged(kept, first),
            "seen": _seen(config, found, known, training=training, why=why),
        },
        populations=(trained_on, Population("these images", counts, kept, looks[judged])),
        images=cache,
    )


def _read_as(
    frame: pd.DataFrame, model: TrainedModel, config: ExternalConfig
) -> tuple[pd.DataFrame, dict[str, dict[str, object]]]:
    """Put localizations that the model does not know into its words; and which they were."""
    known, words = model.encoder.localizations, frame["localization"]
    strange = sorted(set(words) - set(known))
    meant = {word: config.localizations.get(word, UNKNOWN) for word in strange}
    meant = {word: other if other in known else UNKNOWN for word, other in meant.items()}
    read_as = {word: {"images": int((words == word).sum()), "read_as": other} for word, other in meant.items()}
    if lost := [f"{word} ({read_as[word]['images']})" for word in strange if meant[word] == UNKNOWN]:
        log.warning("Localizations that the model does not know: %s; they count as unknown.", first_five(lost))
    return frame.assign(localization=words.replace(meant)), read_as


def _without(frame: pd.DataFrame, found: pd.DataFrame, config: ExternalConfig) -> pd.DataFrame:
    """Leave out what the model knows, if that is the choice, and name it."""
    if found.empty:
        return frame
    names = first_five(f"{row.image_id} ({row.part}, by {row.found_by})" for row in found.itertuples())
    drop = config.leakage == "drop"
    verb = "left out" if drop else "judged all the same (external.leakage=keep)"
    log.warning(
        "%d of %d images are among those of training or validation: %s; %s.", len(found), len(frame), names, verb
    )
    kept = frame[~frame["image_id"].isin(found["image_id"])] if drop else frame
    if kept.empty:
        raise DataError(
            f"no image is left: all {len(frame)} are among those of training or validation; "
            "external.leakage=keep judges them all the same"
        )
    return kept.reset_index(drop=True)


def _training(
    model: TrainedModel, source: SourceConfig, cache_dir: Path
) -> tuple[ImageDescriptors | None, Population, str | None]:
    """The images of the training as they look, their population, and why not, if they are not there."""
    stored = restore_data_config(model.config["data"])
    data = replace(stored, root=source.root or stored.root, cache_dir=str(cache_dir))
    data = replace(data, missing_images="drop", extra_images="ignore")
    counts = read_checkpoint(model.path)["skinlesion"]["class_counts"]
    diagnoses = dict(zip(CODES, counts, strict=True))
    try:
        frame = read_data(data)
    except DataError as error:
        if source.root is not None:
            raise
        problem = str(error).splitlines()[-1].removeprefix("- ")
        why = f"the images of the training are not in {data.root} ({problem}) data.root=FOLDER names their place"
        log.warning("Images that look like those of the training are not searched for: %s.", why)
        return None, Population("training", diagnoses, None, None), why
    cache = open_cache(frame, size=model.spec.size, cache_dir=cache_dir)
    appearance = stored_descriptors(frame, cache, label="looking at the images of the training")
    trained = frame["image_id"].isin(model.split["train"]).to_numpy()
    return appearance, Population("training", diagnoses, frame[trained], appearance.statistics[trained]), None


def _looked_at(
    frame: pd.DataFrame,
    cache: ImageCache,
    training: ImageDescriptors | None,
    known: dict[str, str],
    config: ExternalConfig,
) -> "tuple[np.ndarray[Any, np.dtype[np.float32]], pd.DataFrame]":
    looks, found = [], []
    for block in describe_images(frame, cache, label="looking at the images"):
        looks.append(block.statistics)
        if training is not None:
            alike = find_by_hash(block, training, known, distance=config.distance, similarity=config.similarity)
            found += [alike] if len(alike) else []
    return np.concatenate(looks), pd.concat(found) if found else find_by_id([], {})


def _about(config: ExternalConfig, labelled: LabelledData, read_as: dict[str, dict[str, object]]) -> dict[str, Any]:
    return {
        "images": str(config.images),
        "labels": str(config.labels),
        "metadata": config.metadata,
        "labelled": len(labelled.frame),
        "without_lesion_id": labelled.without_lesion_id,
        "classes": labelled.label_counts,
        "localizations": read_as,
    }


def _caches(
    frame: pd.DataFrame, sizes: set[tuple[int, int]], *, opened: dict[tuple[int, int], ImageCache], cache_dir: Path
) -> dict[tuple[int, int], ImageCache]:
    """The caches of all sizes, those that are open already as they are."""
    return opened | {size: open_cache(frame, size=size, cache_dir=cache_dir) for size in sizes - opened.keys()}


def _judged(kept: pd.DataFrame, model: TrainedModel) -> dict[str, int]:
    """How many images are judged, and how many of them are not from elsewhere."""
    return {"judged": len(kept), "of_own_test_part": int(kept["image_id"].isin(model.split["test"]).sum())}


def _seen(
    config: ExternalConfig,
    found: pd.DataFrame,
    known: Mapping[str, str],
    *,
    training: ImageDescriptors | None,
    why: str | None,
) -> dict[str, Any]:
    """How many images the model knows, and among how many they were looked for."""
    looked_at = 0 if training is None else len(set(training.image_ids) & set(known))
    return {
        "choice": config.leakage,
        "by_id": int((found["found_by"] == "id").sum()),
        "by_hash": int((found["found_by"] == "hash").sum()) if looked_at else None,
        "compared_by_id": len(known),
        "compared_by_hash": looked_at,
        **({"note": f"not compared by hash: {why}"} if why else {}),
    }
