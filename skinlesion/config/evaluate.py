"""The schemas of `skinlesion evaluate` and `skinlesion compare`."""

from dataclasses import dataclass
from typing import Annotated

from skinlesion.config.data import LoaderConfig, SourceConfig
from skinlesion.config.schema import (
    BootstrapKeys,
    OneOf,
    PathText,
    Range,
    Tta,
    require,
    require_classes,
    require_one_model,
)


@dataclass
class ExternalConfig:
    """Images of another source, instead of a part of the split."""

    images: PathText | None  # folder of JPEG or PNG files, named by image id; null: a part of the split is evaluated
    labels: PathText | None  # CSV of diagnoses: one column a class as in the ISIC challenges, or a column dx
    metadata: PathText | None  # CSV of age, sex and localization by image id; null: the label file's own, if any
    missing_images: Annotated[str, OneOf(("error", "drop"))]  # what to do with rows that have no image
    extra_images: Annotated[str, OneOf(("error", "ignore"))]  # what to do with images that have no row
    leakage: Annotated[str, OneOf(("drop", "keep"))]  # what to do with images that training or validation had too
    distance: Annotated[int, Range(0, 32)]  # near duplicates: most differing bits of their 64-bit perceptual hashes
    similarity: Annotated[float, Range(0, 1, above=True)]  # near duplicates: least correlation of their fine detail
    classes: dict[str, str]  # diagnosis code, drop or error for each word of the label file
    localizations: dict[str, str]  # localization known to the model for each one of the label file that is not

    def __post_init__(self) -> None:
        require_classes("external.classes", self.classes)


@dataclass
class EvaluateConfig(BootstrapKeys):
    """`skinlesion evaluate`."""

    checkpoint: PathText | None  # checkpoint to evaluate, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble to evaluate: ensemble.json, or its folder
    submission: PathText | None  # challenge CSV of probabilities to evaluate against external.labels, without a model
    split: str | None  # part of the split to evaluate: val or test; null: external images or a submission
    out: PathText | None  # folder of the results; null: a folder beside the model
    calibrated: bool  # whether an ensemble's calibrated probabilities are measured too
    tta: Tta | None  # test-time augmentation; null: the ensemble's own, or none
    bins: Annotated[int, Range(2)]  # number of bins of the reliability diagram
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    data: SourceConfig
    external: ExternalConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        if self.submission is None:
            require_one_model(self.checkpoint, self.ensemble)
        self._check_images()

    def _check_images(self) -> None:
        """Refuse anything but a part of the split, images of another source, or a submission and its labels."""
        other = self.external
        if self.submission is not None:
            alone = self.checkpoint is None and self.ensemble is None and other.images is None
            expected = "no model and no images beside it: a submission holds the probabilities"
            require(alone, "submission", self.submission, expected)
        if self.submission is None and other.images is None:
            expected = "val or test, or images of another source as external.images=FOLDER external.labels=CSV"
            require(self.split in ("val", "test"), "split", self.split, expected)
            given = other.labels is not None or other.metadata is not None
            require(not given, "external.images", other.images, "the folder of the images")
        else:
            require(self.split is None, "split", self.split, "null, where external.images or submission is given")
            require(other.labels is not None, "external.labels", other.labels, "the CSV of the images' diagnoses")


@dataclass
class CompareConfig(BootstrapKeys):
    """`skinlesion compare`."""

    tables: list[PathText]  # predictions tables, the reference first; the files that a pattern (*) matches are pooled
    out: PathText | None  # JSON file of all numbers; null: none is written
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors

    def __post_init__(self) -> None:
        require(len(self.tables) > 0, "tables", self.tables, "at least one predictions table")
        require(len(set(self.tables)) == len(self.tables), "tables", self.tables, "each table once")
