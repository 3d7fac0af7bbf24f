"""Where images and table are, how lesions are split, how training images are changed and batched."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from skinlesion.config.checks import require, require_choice, require_classes


@dataclass
class DataConfig:
    """Where the images and the table are, and how they are read."""

    root: str  # folder that holds the tables and the image folders
    table: str  # file name of the table in root; HAM10000's may lack its extension. Where classes are given: the labels
    metadata: str | None  # file name of the patients' facts in root, where they are not in the table
    images: list[str]  # names of the image folders in root
    classes: dict[str, str] | None  # what the labels' words stand for: a code, drop or error; null: HAM10000's table
    missing_images: str  # error | drop: what to do with rows without an image
    extra_images: str  # error | ignore: what to do with images without a row
    cache_dir: str  # folder of decoded images and frozen features; safe to delete

    def __post_init__(self) -> None:
        require_choice("data.missing_images", self.missing_images, ("error", "drop"))
        require_choice("data.extra_images", self.extra_images, ("error", "ignore"))
        require(len(self.images) > 0, "data.images", self.images, "at least one folder name")
        require_classes("data.classes", self.classes or {})
        beside = self.metadata is None or self.classes is not None
        require(beside, "data.metadata", self.metadata, "null, as HAM10000's table holds the facts (data.classes=null)")


def reading(settings: Mapping[str, Any]) -> DataConfig:
    """How images and table were read in a training, of whichever version, with these settings."""
    known = {"metadata": None, "classes": None, **settings}  # neither was there before label files were read
    return DataConfig(**{field.name: known[field.name] for field in fields(DataConfig)})


@dataclass
class TrainingDataConfig(DataConfig):
    """What training needs beside that."""

    augment_on: str  # cpu | device: where training images are changed

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("data.augment_on", self.augment_on, ("cpu", "device"))


@dataclass
class SourceConfig:
    """Where a trained model finds the images; null: where it was trained."""

    root: str | None  # folder that holds the table and the image folders
    cache_dir: str | None  # folder of decoded images; safe to delete


@dataclass
class SplitConfig:
    """How lesions are divided into training, validation and test."""

    policy: str  # published | grouped | file
    seed: int  # of the shuffles: published, grouped, and the validation part of a file of folds
    folds: int  # number of folds, grouped
    fold: int  # the fold that is the test part, from 0: grouped, and a file of folds
    val_fraction: float  # share of the remaining images that validates: grouped, and a file of folds
    file: str | None  # CSV of a split (image_id, split) or of folds (image_id, fold): file

    def __post_init__(self) -> None:
        require_choice("split.policy", self.policy, ("published", "grouped", "file"))
        require(self.seed >= 0, "split.seed", self.seed, "a whole number >= 0")
        require(self.folds >= 2, "split.folds", self.folds, "at least 2")
        counted = self.policy != "file"  # a file has folds of its own
        expected = f"0 to {self.folds - 1} (split.folds - 1)" if counted else "0 or more"
        require(self.fold >= 0 and (self.fold < self.folds or not counted), "split.fold", self.fold, expected)
        require(0 < self.val_fraction < 0.5, "split.val_fraction", self.val_fraction, "more than 0, less than 0.5")
        require(
            self.policy != "file" or self.file is not None,
            "split.file",
            self.file,
            "the CSV of a split or of folds (split.policy=file)",
        )


@dataclass
class AugmentConfig:
    """Random changes of training images."""

    flip: float  # probability of each of the two flips
    rotation: float  # degrees, either way
    shift: float  # fraction of the side, either way
    zoom: float  # fraction of the scale, either way
    brightness: float  # fraction, either way
    contrast: float  # fraction, either way
    hue: float  # fraction of the colour circle, either way
    saturation: float  # fraction, either way
    square: float  # probability that only a square part is seen, fitted as a square photograph would be
    square_side: float  # least side of that square, as a fraction of the image's shorter side

    def __post_init__(self) -> None:
        require(0 <= self.hue <= 0.5, "augment.hue", self.hue, "0 to 0.5")
        require(0 <= self.square <= 1, "augment.square", self.square, "0 to 1")
        require(0.1 <= self.square_side <= 1, "augment.square_side", self.square_side, "0.1 to 1")
        require(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "0 to 180 degrees")
        for key in ("flip", "shift", "zoom", "brightness", "contrast", "saturation"):
            value = getattr(self, key)
            require(
                0 <= value <= (1 if key == "flip" else 0.9),
                f"augment.{key}",
                value,
                "a fraction, 0 to 0.9 (flip: 1)",
            )


@dataclass
class LoaderConfig:
    """How batches are made."""

    batch_size: int  # images
    workers: int  # processes that augment; 0: the training process itself

    def __post_init__(self) -> None:
        require(self.batch_size >= 2, "loader.batch_size", self.batch_size, "at least 2 (batch norm)")
        require(self.workers >= 0, "loader.workers", self.workers, "0 or more")
