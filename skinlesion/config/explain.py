"""The schema of `skinlesion explain`."""

from dataclasses import dataclass

from skinlesion.config.checks import (
    require,
    require_bootstrap,
    require_choice,
    require_one_model,
    require_seed,
    require_tta,
)
from skinlesion.config.data import SourceConfig
from skinlesion.errors import ConfigError
from skinlesion.taxonomy import CODES


@dataclass
class ExplainConfig:
    """`skinlesion explain`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    image: str | None  # a file: what speaks for its diagnosis
    split: str | None  # val | test, instead of an image: whether the maps of that part can be trusted
    class_: str | None  # `class=`: a code, such as mel: what speaks for this diagnosis too; null: that predicted
    age: float | None  # years
    sex: str | None  # female | male
    localization: str | None  # as in HAM10000: back, face, scalp, …
    tta: str | None  # none | flips | dihedral: which turns vote; null: those of the ensemble, or none
    out: str | None  # folder of the results; null: `explanations` beside the model
    images: int | None  # of the part, how many are drawn; null: all
    masks: str | None  # a folder of lesion masks, PNG by image id
    interval: str  # bca | percentile: kind of the intervals
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap, of the draw of images, of the shuffled weights
    accelerator: str  # auto | cpu | gpu …
    data: SourceConfig

    def __post_init__(self) -> None:
        require_tta(self.tta)
        require_one_model(self.checkpoint, self.ensemble)
        require(self.age is None or 0 <= self.age <= 120, "age", self.age, "0 to 120 years, or null")
        if self.class_ is not None:
            require_choice("class", self.class_, CODES)
        if (self.image is None) == (self.split is None):
            raise ConfigError("expected image=FILE, to be explained, or split=val, to check the maps of that part")
        if self.split is not None:
            require_choice("split", self.split, ("val", "test"))
        require(self.images is None or self.images >= 2, "images", self.images, "at least 2, or null: all")
        require_seed(self.seed)
        require_bootstrap(self.resamples, self.level, self.interval)
