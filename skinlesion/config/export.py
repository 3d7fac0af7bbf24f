"""The schema of `skinlesion export`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_choice, require_one_model, require_seed, require_tta
from skinlesion.config.data import SourceConfig


@dataclass
class ExportConfig:
    """`skinlesion export`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    out: str  # folder of the bundle; an earlier bundle there is replaced
    precision: str  # fp32 | fp16 (weights alone) | int8 (convolutions)
    tta: str | None  # none | flips | dihedral: which turns of an image vote; an ensemble has its own
    images: int  # of validation, on which the bundle is compared with PyTorch
    calibration_images: int  # of training, which show int8 the ranges of its numbers
    seed: int  # of the choice of these images
    data: SourceConfig

    def __post_init__(self) -> None:
        require_tta(self.tta)
        require_seed(self.seed)
        require_one_model(self.checkpoint, self.ensemble)
        its_own = "null with an ensemble, whose own turns are those that it was calibrated with"
        require(self.tta is None or self.ensemble is None, "tta", self.tta, its_own)
        require_choice("precision", self.precision, ("fp32", "fp16", "int8"))
        require(self.images >= 1, "images", self.images, "at least 1")
        require(self.calibration_images >= 8, "calibration_images", self.calibration_images, "at least 8")
