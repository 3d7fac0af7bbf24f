"""The schema of `skinlesion predict`."""

from dataclasses import dataclass
from typing import Annotated

from skinlesion.config.data import LoaderConfig
from skinlesion.config.schema import OneOf, PathText, Range, Tta, require, require_one_model

Age = Annotated[float, Range(0, 120)]


@dataclass
class PredictConfig:
    """`skinlesion predict`."""

    image: PathText  # image file, or a folder of images
    checkpoint: PathText | None  # checkpoint that predicts, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble that predicts: ensemble.json, or its folder
    bundle: PathText | None  # folder of an exported bundle that predicts, which needs no torch and runs on the CPU
    age: Age | None  # age of the patient in years; null: unknown
    sex: str | None  # sex of the patient: female or male; null: unknown
    localization: str | None  # site of the lesion as in HAM10000: back, face, scalp, ...; null: unknown
    tta: Tta | None  # test-time augmentation; null: the ensemble's own, or none
    calibrated: bool  # whether an ensemble's probabilities are calibrated; false: the members' mean
    format: Annotated[str, OneOf(("table", "json"))]  # output format on stdout
    accelerator: str  # device: auto, cpu, gpu, or another that Lightning knows
    loader: LoaderConfig

    def __post_init__(self) -> None:
        if self.bundle is None:
            require_one_model(self.checkpoint, self.ensemble, otherwise=" or bundle=FOLDER")
        alone = self.bundle is None or (self.checkpoint is None and self.ensemble is None)
        require(alone, "bundle", self.bundle, "no checkpoint and no ensemble beside it")
        require(self.bundle is None or self.tta is None, "tta", self.tta, "null with a bundle, which has its own")
