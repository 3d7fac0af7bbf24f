"""The schema of `skinlesion robustness`."""

from dataclasses import dataclass
from typing import Any

from skinlesion.config.checks import (
    require,
    require_bootstrap,
    require_choice,
    require_one_model,
    require_seed,
    require_tta,
)
from skinlesion.config.data import SourceConfig


@dataclass
class RobustnessConfig:
    """`skinlesion robustness`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    split: str  # val | test
    images: int | None  # how many of the part are drawn; null: all
    out: str | None  # folder of the results; null: `robustness` beside the model
    tta: str | None  # none | flips | dihedral: which turns of an image vote; null: those of the ensemble, or none
    steps: dict[str, Any]  # lists of numbers, of each disturbance; ~steps.NAME leaves one out
    id_pass_rate: float | None  # share of validation images that is not flagged as novel; null: novelty is not judged
    interval: str  # bca | percentile: kind of the intervals
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap, of the draw of images, of hairs and rulers
    accelerator: str  # auto | cpu | gpu …
    data: SourceConfig

    def __post_init__(self) -> None:
        require_choice("split", self.split, ("val", "test"))
        require_seed(self.seed)
        require_tta(self.tta)
        require_one_model(self.checkpoint, self.ensemble)
        require(self.images is None or self.images >= 2, "images", self.images, "at least 2, or null: all")
        expected = "more than 0, less than 1, or null"
        require(self.id_pass_rate is None or 0 < self.id_pass_rate < 1, "id_pass_rate", self.id_pass_rate, expected)
        require_bootstrap(self.resamples, self.level, self.interval)
