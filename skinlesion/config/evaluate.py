"""The schema of `skinlesion evaluate`."""

from dataclasses import dataclass

from skinlesion.config.checks import (
    require,
    require_bootstrap,
    require_one_model,
    require_seed,
    require_tta,
)
from skinlesion.config.data import LoaderConfig, SourceConfig
from skinlesion.config.external import ExternalConfig


@dataclass
class EvaluateConfig:
    """`skinlesion evaluate`."""

    checkpoint: str | None  # a best.ckpt
    ensemble: str | None  # or an ensemble.json
    submission: str | None  # or a challenge's CSV of probabilities, judged by external.labels alone
    split: str | None  # val | test; null where external images are given
    out: str | None  # folder of the results; null: a folder beside the model
    calibrated: bool  # give the numbers after an ensemble's calibration too; the predictions themselves stay as voted
    interval: str  # bca | percentile: kind of the intervals
    resamples: int  # of the bootstrap over lesions
    level: float  # of the intervals
    seed: int  # of the bootstrap
    tta: str | None  # none | flips | dihedral: which turns of an image vote; null: those of the ensemble, or none
    bins: int  # of the reliability diagram
    accelerator: str  # auto | cpu | gpu …, as Lightning names them
    data: SourceConfig  # of the images it was trained with
    external: ExternalConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        if self.submission is None:
            require_one_model(self.checkpoint, self.ensemble)
        self._check_images()
        require_seed(self.seed)
        require_tta(self.tta)
        require(self.bins >= 2, "bins", self.bins, "at least 2")
        require_bootstrap(self.resamples, self.level, self.interval)

    def _check_images(self) -> None:
        """Refuse anything but a part of the split, images of another source, or an submission and its labels."""
        other = self.external
        if self.submission is not None:
            alone = self.checkpoint is None and self.ensemble is None and other.images is None
            require(
                alone,
                "submission",
                self.submission,
                "no model and no images beside it: an submission holds the probabilities",
            )
        if self.submission is None and other.images is None:
            expected = "val or test, or images of another source as external.images=FOLDER external.labels=CSV"
            require(self.split in ("val", "test"), "split", self.split, expected)
            given = other.labels is not None or other.metadata is not None
            require(not given, "external.images", other.images, "the folder of the images")
        else:
            require(self.split is None, "split", self.split, "null, where external.images or submission is given")
            require(other.labels is not None, "external.labels", other.labels, "the CSV of the images' diagnoses")
