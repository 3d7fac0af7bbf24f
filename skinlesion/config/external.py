"""The schema of images of another source, that a trained model is judged on."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_choice, require_classes


@dataclass
class ExternalConfig:
    """Images, what is known of them, and what is left out."""

    images: str | None  # a folder of JPEG or PNG files, named by image id; null: a part of the split is judged
    labels: str | None  # CSV, one-hot as in the ISIC challenges or with a column dx
    metadata: str | None  # CSV of age, sex and localization by image id; null: what the label file holds of them
    missing_images: str  # error | drop: what to do with rows without an image
    extra_images: str  # error | ignore: what to do with images without a row
    seen: str  # drop | keep: what to do with images that are among those of training or validation
    distance: int  # bits in which the perceptual hashes of near duplicates differ at most, of 64
    similarity: float  # least correlation of their fine detail
    classes: dict[str, str]  # what the labels' words stand for: a code, drop or error
    localizations: dict[str, str]  # what localizations are read as that the model does not know

    def __post_init__(self) -> None:
        require_choice("external.missing_images", self.missing_images, ("error", "drop"))
        require_choice("external.extra_images", self.extra_images, ("error", "ignore"))
        require_choice("external.seen", self.seen, ("drop", "keep"))
        require(0 <= self.distance <= 32, "external.distance", self.distance, "0 to 32 bits")
        require(0 < self.similarity <= 1, "external.similarity", self.similarity, "more than 0, at most 1")
        require_classes("external.classes", self.classes)
