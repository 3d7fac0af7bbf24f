"""The schema of `skinlesion predict`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_choice, require_one_model, require_tta
from skinlesion.config.data import LoaderConfig


@dataclass
class PredictConfig:
    """`skinlesion predict`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    bundle: str | None  # or the folder of an exported bundle, which needs no torch and runs on the CPU
    image: str  # a file or a folder
    age: float | None  # years
    sex: str | None  # female | male
    localization: str | None  # as in HAM10000: back, face, scalp, …
    tta: str | None  # none | flips | dihedral: which turns of an image vote; null: those of the ensemble, or none
    calibrated: bool  # give an ensemble's calibrated probabilities; false: the members' mean as it is
    format: str  # table | json
    accelerator: str  # auto | cpu | gpu …
    loader: LoaderConfig

    def __post_init__(self) -> None:
        require_tta(self.tta)
        if self.bundle is None:
            require_one_model(self.checkpoint, self.ensemble, otherwise=" or bundle=FOLDER")
        alone = self.bundle is None or (self.checkpoint is None and self.ensemble is None)
        require(alone, "bundle", self.bundle, "no checkpoint and no ensemble beside it")
        require(self.bundle is None or self.tta is None, "tta", self.tta, "null with a bundle, which has its own")
        require_choice("format", self.format, ("table", "json"))
        require(self.age is None or 0 <= self.age <= 120, "age", self.age, "0 to 120 years, or null")
