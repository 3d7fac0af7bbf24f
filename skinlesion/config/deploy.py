"""The schemas of `skinlesion export`, `skinlesion push` and `skinlesion serve`."""

import re
from dataclasses import dataclass
from typing import Annotated

from skinlesion.config.data import SourceConfig
from skinlesion.config.schema import (
    BootstrapKeys,
    Count,
    OneOf,
    PathText,
    Positive,
    Range,
    Seed,
    Tta,
    require,
    require_one_model,
)
from skinlesion.errors import ConfigError


@dataclass
class ExportConfig:
    """`skinlesion export`."""

    checkpoint: PathText | None  # checkpoint to export, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble to export: ensemble.json, or its folder
    out: PathText  # folder of the bundle; an earlier bundle there is replaced
    precision: Annotated[str, OneOf(("fp32", "fp16", "int8"))]  # number format: fp16 of weights, int8 of convolutions
    tta: Tta | None  # test-time augmentation of a checkpoint; null: the ensemble's own, or none
    images: Count  # number of validation images on which the bundle is compared with PyTorch
    calibration_images: Annotated[int, Range(8)]  # number of training images that calibrate int8
    seed: Seed  # seed of the choice of these images
    data: SourceConfig

    def __post_init__(self) -> None:
        require_one_model(self.checkpoint, self.ensemble)
        its_own = "null with an ensemble, which is calibrated with its own"
        require(self.tta is None or self.ensemble is None, "tta", self.tta, its_own)


@dataclass
class PushConfig(BootstrapKeys):
    """`skinlesion push`."""

    checkpoint: PathText | None  # checkpoint to publish, such as best.ckpt of a run
    ensemble: PathText | None  # ensemble to publish with the members that vote: ensemble.json, or its folder
    bundle: PathText | None  # bundle to publish: its folder
    repo: str | None  # repository on the Hugging Face hub, user/name; it is made if it is not there
    out: PathText | None  # folder in which the files are left too, which holds nothing else; null: they are not
    dry_run: bool  # true: the files are written to out, and nothing is sent
    private: bool  # whether a repository that is made can be seen by its owner alone
    licence: str | None  # of the weights, as the hub spells it; null: cc-by-nc-4.0 if HAM10000 trained them, else other
    datasets: list[str] | None  # data sets it was trained on; null: HAM10000 if it was that, else none
    predictions: PathText | None  # table whose metrics the card shows; null: predictions_test.csv (or _val) beside it
    message: str | None  # message of the commit; null: "skinlesion VERSION"
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors

    def __post_init__(self) -> None:
        given = [each for each in (self.checkpoint, self.ensemble, self.bundle) if each is not None]
        if len(given) != 1:
            raise ConfigError(f"{len(given)} models given: expected one, as checkpoint=, ensemble= or bundle=")
        named = self.repo is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo) is not None
        require(named, "repo", self.repo, "user/name, as on the Hugging Face hub")
        require(not self.dry_run or self.out is not None, "out", self.out, "a folder, where nothing is sent")


@dataclass
class LimitsConfig:
    """Limits of the service; a request beyond one is refused with a 4xx or 503 that says so."""

    images: Count  # largest number of images in one request
    image_mib: Positive  # largest image file in MiB
    request_mib: Positive  # largest request in MiB
    megapixels: Positive  # largest image in megapixels
    shortest_side: Count  # smallest side of an image in pixels
    waiting: Count  # largest number of images, of all requests, that wait for an answer
    batch: Count  # largest number of images that the model takes at once
    timeout: Positive  # seconds in which a request is answered, its upload included
    explain_seconds: Positive  # seconds for an occlusion map, which set how fine its grid is

    def __post_init__(self) -> None:
        most = self.timeout / 2  # predictions take every second turn
        require(self.explain_seconds <= most, "limits.explain_seconds", self.explain_seconds, f"{most:g} or less")
        require(self.waiting >= self.images, "limits.waiting", self.waiting, f"limits.images={self.images} or more")
        enough = f"limits.image_mib={self.image_mib:g} or more"
        require(self.request_mib >= self.image_mib, "limits.request_mib", self.request_mib, enough)


@dataclass
class ServeConfig:
    """`skinlesion serve`."""

    bundle: PathText  # folder of an exported bundle
    host: str  # address to listen on; 127.0.0.1: this machine alone
    port: Annotated[int, Range(0, 65535)]  # port to listen on; 0: a free one
    threads: Count | None  # threads of the model; null: the cores that the process may use
    limits: LimitsConfig
