"""Predictions for images of another source, without the images that the model knows from training or validation."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from skinlesion.config.data import SourceConfig, restore_data_config
from skinlesion.config.inference import ExternalConfig
from skinlesion.config.schema import require_choice
from skinlesion.data.columns import Layout
from skinlesion.data.image_cache import ImageCache, open_cache
from skinlesion.data.image_statistics import describe_images, stored_descriptors
from skinlesion.data.labels import LabelCount
from skinlesion.data.metadata import UNKNOWN
from skinlesion.data.near_duplicates import ImageDescriptors, find_by_hash, find_by_id, parts_of_training
from skinlesion.data.readers import LabelledData, find_tables, read_data, read_labelled
from skinlesion.errors import DataError, first_five
from skinlesion.inference.calibration import calibrated
from skinlesion.inference.predictions import Predictions
from skinlesion.inference.predictor import Predictor
from skinlesion.inference.split_part import with_split
from skinlesion.inference.table_columns import object_array
from skinlesion.studies.external.populations import Population
from skinlesion.taxonomy import BENIGN, MALIGNANT, Taxonomy
from skinlesion.training.checkpoint import TrainedModel, read_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownImages:
    """Images of another source that are among those of training or validation."""

    choice: str  # "drop" or "keep"
    by_id: int  # images found by id
    by_hash: int | None  # images found by perceptual hash; None where the training images are not available
    compared_by_id: int  # training and validation images whose ids were compared
    compared_by_hash: int  # training and validation images whose hashes were compared
    note: str = ""  # reason why hashes were not compared

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `note` only where there is one."""
        return {name: value for name, value in vars(self).items() if name != "note" or value}


@dataclass(frozen=True)
class ExternalSource:
    """Contents of a source and their treatment, as written under `external` in the results."""

    images: str  # folder
    labels: str  # label file
    metadata: str | None  # metadata file
    labelled: int  # images with a diagnosis
    without_lesion_id: int  # images without lesion_id
    facts: dict[str, str]  # column of each fact that was found
    classes: dict[str, LabelCount]  # number of images and their diagnosis, by word of the label file
    localizations: dict[str, dict[str, object]]  # number of images and replacement, by unknown localization
    judged: int  # predicted images
    target: str | None  # judged against all else, with calibrated probabilities; None: all diagnoses
    of_own_test_part: int  # predicted images that belong to the test part of the model's own data set
    seen: KnownImages


@dataclass(frozen=True)
class ExternalPredictions:
    """Predictions for images of another source."""

    predictions: Predictions
    frame: pd.DataFrame  # checked frame of the predicted images
    known: pd.DataFrame  # images known from training or validation, columns `near_duplicates.LEAKAGE_COLUMNS`
    source: ExternalSource
    populations: tuple[Population, Population]  # of training and of the predicted images
    cache: ImageCache  # decoded images


@dataclass(frozen=True)
class _Training:
    """Training data of a model, as far as they are available."""

    descriptors: ImageDescriptors | None
    population: Population
    missing: str = ""  # reason why the images are not available


def predict_external(predictor: Predictor, config: ExternalConfig, *, source: SourceConfig) -> ExternalPredictions:
    """Predict images of another source.

    Args:
        predictor: A checkpoint or an ensemble.
        config: Images, labels, metadata and their treatment.
        source: Location of the training images, with which the images are compared.

    Raises:
        DataError: The images or their tables are invalid, or the model knows all images.
        CheckpointError: The predictor is a bundle.
    """
    first = _with_split(predictor.networks.models[0], source)
    if config.target is not None:
        require_choice("external.target", config.target, (*predictor.taxonomy.codes, MALIGNANT))
    cache_dir = Path(source.cache_dir or first.config["data"]["cache_dir"])
    labelled, target = _read_source(first, config, taxonomy=predictor.taxonomy, cache_dir=cache_dir)
    frame, localizations = _map_localizations(labelled.frame, first, config)
    parts = parts_of_training(first.split)
    by_id = find_by_id(frame["image_id"].tolist(), parts)
    frame = _without_known(frame, by_id, config)
    caches = {
        size: open_cache(frame, size=size, cache_dir=cache_dir, treatment=predictor.members.treatment)
        for size in (first.spec.size, *predictor.sizes)
    }
    cache, training = caches[first.spec.size], _read_training(first, source, cache_dir)
    statistics, by_hash = _find_by_hash(frame, cache, training.descriptors, parts, config)
    by_hash = by_hash[~by_hash["image_id"].isin(by_id["image_id"])]
    kept = _without_known(frame, by_hash, config)
    known, rows = pd.concat([by_id, by_hash], ignore_index=True), frame["image_id"].isin(kept["image_id"]).to_numpy()
    predictions = predictor.predict_frame(kept, caches=caches)
    predictions, before = _against_rest(predictions, training.population, predictor, target)
    counts = {code: int((predictions.actual == code).sum()) for code in predictions.taxonomy.codes}
    return ExternalPredictions(
        predictions=predictions,
        frame=kept,
        known=known,
        source=ExternalSource(
            images=", ".join(map(str, config.folders)),
            labels=str(config.labels),
            metadata=config.metadata,
            labelled=len(labelled.frame),
            without_lesion_id=labelled.without_lesion_id,
            facts=labelled.fact_columns,
            classes=labelled.label_counts,
            localizations=localizations,
            judged=len(kept),
            target=target,
            of_own_test_part=int(kept["image_id"].isin(first.split["test"]).sum()),
            seen=_count_known(known, parts, training, choice=config.leakage),
        ),
        populations=(before, Population("these images", counts, kept, statistics[rows])),
        cache=cache,
    )


def check_external(predictor: Predictor, config: ExternalConfig, *, source: SourceConfig) -> None:
    """Read the tables and check the image files as `predict_external` does.

    Raises:
        DataError: The images or their tables are invalid.
    """
    first = predictor.networks.models[0]
    cache_dir = Path(source.cache_dir or first.config["data"]["cache_dir"])
    _read_source(first, config, taxonomy=predictor.taxonomy, cache_dir=cache_dir)


def _with_split(model: TrainedModel, source: SourceConfig) -> TrainedModel:
    """The model with the images of its parts, where they are known or can be found again; else a warning says so."""
    try:
        return with_split(model, source)
    except DataError as error:
        if source.root is not None:
            raise
        log.warning("A published model names no images, so that images it was trained on are not found: %s", error)
        return model


def _read_source(
    model: TrainedModel, config: ExternalConfig, *, taxonomy: Taxonomy, cache_dir: Path
) -> tuple[LabelledData, str | None]:
    """Read the images, and find what is judged against all else."""
    labels = Path(str(config.labels)).expanduser()
    labelled = read_labelled(
        next(iter(find_tables(labels.parent, labels.name)), labels),
        images=config.folders,
        metadata=None if config.metadata is None else Path(config.metadata).expanduser(),
        layout=Layout.of(config.columns, model.encoder.facts, config.facts, key="external"),
        groups=None if config.groups is None else Path(config.groups).expanduser(),
        classes=config.classes,
        missing_images=config.missing_images,
        extra_images=config.extra_images,
        torn=config.torn,
        taxonomy=taxonomy,
        key="external",
        binary=True,
        cache_dir=cache_dir,
    )
    return labelled, _find_target(labelled.frame["diagnosis"], taxonomy, config.target)


def _find_target(labels: "pd.Series[str]", taxonomy: Taxonomy, target: str | None) -> str | None:
    """What is judged against all else, as given, or as labels say that tell no more; None: all diagnoses.

    Raises:
        DataError: The labels do not tell it.
    """
    said = {word.removeprefix("not ") for word in labels}  # a column of 0 and 1 tells one diagnosis alone
    if not {*labels} <= {*taxonomy.codes}:
        target = target or next(iter(said - {BENIGN}), MALIGNANT)
        if not said <= {MALIGNANT, BENIGN, target}:
            raise DataError(f"external.target={target}: the labels say no more than {min(said)} or not")
    if target not in (None, *taxonomy.codes, *(each.category for each in taxonomy.diagnoses)):
        raise DataError(f"no diagnosis of {taxonomy.name} is {target}; give external.target=CODE of one that is meant")
    return target


def _against_rest(
    predictions: Predictions, training: Population, predictor: Predictor, target: str | None
) -> tuple[Predictions, Population]:
    """Judge one target against all else, calibrated, if there is one; and the training likewise."""
    taxonomy = predictor.taxonomy
    if target is None:
        return predictions, training
    log.info("Judged: %s against all else; external.target=CODE judges another diagnosis.", target)
    if not {*predictions.actual} <= {*taxonomy.codes}:
        yes, no = taxonomy.against_rest(target).codes
        answers = object_array(yes if word in (target, MALIGNANT) else no for word in predictions.actual)
        predictions = replace(predictions, actual=answers)
    scaled = calibrated(predictions.probabilities, predictor.posthoc.calibration)
    predictions = replace(predictions, probabilities=scaled).against_rest(target)
    mask = dict(zip(taxonomy.codes, taxonomy.mask(target), strict=True))
    own = sum(images for code, images in training.diagnoses.items() if mask[code])
    counts = dict(zip(predictions.taxonomy.codes, (own, sum(training.diagnoses.values()) - own), strict=True))
    return predictions, replace(training, diagnoses=counts)


def _map_localizations(
    frame: pd.DataFrame, model: TrainedModel, config: ExternalConfig
) -> tuple[pd.DataFrame, dict[str, dict[str, object]]]:
    """Replace localizations that the model does not know; return the replacements too."""
    known = next((fact.categories for fact in model.encoder.facts if fact.name == "localization"), None)
    if known is None:
        return frame, {}
    values = frame["localization"]
    replacements = {}
    for word in sorted(set(values) - set(known)):
        other = config.localizations.get(word, UNKNOWN)
        replacements[word] = other if other in known else UNKNOWN
    found: dict[str, dict[str, object]] = {
        word: {"images": int((values == word).sum()), "read_as": other} for word, other in replacements.items()
    }
    if lost := [f"{word} ({found[word]['images']})" for word, other in replacements.items() if other == UNKNOWN]:
        log.warning("The model does not know these localizations, which count as unknown: %s.", first_five(lost))
    return frame.assign(localization=values.replace(replacements)), found


def _without_known(frame: pd.DataFrame, known: pd.DataFrame, config: ExternalConfig) -> pd.DataFrame:
    """Warn about images that the model knows, and leave them out if `external.leakage` says so."""
    if known.empty:
        return frame
    drop = config.leakage == "drop"
    log.warning(
        "%d of %d images are in the training or validation data (%s); %s.",
        len(known),
        len(frame),
        first_five(f"{row.image_id} ({row.part}, by {row.found_by})" for row in known.itertuples()),
        "they are left out" if drop else "they are evaluated all the same (external.leakage=keep)",
    )
    kept = frame[~frame["image_id"].isin(known["image_id"])] if drop else frame
    if kept.empty:
        raise DataError(
            f"no image is left: all {len(frame)} are in the training or validation data; "
            "external.leakage=keep evaluates them all the same"
        )
    return kept.reset_index(drop=True)


def _read_training(model: TrainedModel, source: SourceConfig, cache_dir: Path) -> _Training:
    stored = restore_data_config(model.config["data"])
    data = replace(stored, root=source.root or stored.root, cache_dir=str(cache_dir))
    counts = read_checkpoint(model.path)["skinlesion"]["class_counts"]
    diagnoses = dict(zip(model.taxonomy.codes, counts, strict=True))
    log.info("Training images, which are looked for among these, from %s:", data.root)
    try:
        frame = read_data(replace(data, missing_images="drop", extra_images="ignore"), taxonomy=model.taxonomy)
    except DataError as error:
        if source.root is not None:
            raise
        problem = str(error).splitlines()[-1].removeprefix("- ")
        missing = f"the training images are not in {data.root} ({problem}) give their folder as data.root=FOLDER"
        log.warning("Images are not compared with the training images by hash: %s.", missing)
        return _Training(None, Population("training", diagnoses, None, None), missing)
    cache = open_cache(frame, size=model.spec.size, cache_dir=cache_dir, treatment=model.spec.treatment)
    descriptors = stored_descriptors(frame, cache, label="describing the training images")
    rows = frame["image_id"].isin(model.split["train"]).to_numpy()
    return _Training(descriptors, Population("training", diagnoses, frame[rows], descriptors.statistics[rows]))


def _find_by_hash(
    frame: pd.DataFrame,
    cache: ImageCache,
    training: ImageDescriptors | None,
    parts: dict[str, str],
    config: ExternalConfig,
) -> tuple[npt.NDArray[np.float32], pd.DataFrame]:
    """Image statistics (N, 8), and the images that look like training or validation images."""
    statistics, found = [], [find_by_id([], {})]
    for block in describe_images(frame, cache, label="describing the images"):
        statistics.append(block.statistics)
        if training is not None:
            alike = find_by_hash(block, training, parts, distance=config.distance, similarity=config.similarity)
            found += [alike] if len(alike) else []
    return np.concatenate(statistics), pd.concat(found[1:] or found)


def _count_known(known: pd.DataFrame, parts: Mapping[str, str], training: _Training, *, choice: str) -> KnownImages:
    hashed = 0 if training.descriptors is None else len(set(training.descriptors.image_ids) & set(parts))
    return KnownImages(
        choice=choice,
        by_id=int((known["found_by"] == "id").sum()),
        by_hash=int((known["found_by"] == "hash").sum()) if hashed else None,
        compared_by_id=len(parts),
        compared_by_hash=hashed,
        note=f"not compared by hash: {training.missing}" if training.missing else "",
    )
