"""The schema of `skinlesion predict`."""

from dataclasses import dataclass

from skinlesion.config.checks import require, require_choice, require_one_model, require_tta
from skinlesion.config.data import LoaderConfig


@dataclass
class PredictConfig:
    """`skinlesion predict`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
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
        require_one_model(self.checkpoint, self.ensemble)
        require_choice("format", self.format, ("table", "json"))
        require(self.age is None or 0 <= self.age <= 120, "age", self.age, "0 to 120 years, or null")
