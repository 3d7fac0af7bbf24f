"""The schema of `skinlesion ensemble`."""

from dataclasses import dataclass
from typing import Annotated, Any

from skinlesion.config.data import LoaderConfig, SourceConfig
from skinlesion.config.schema import (
    PATH,
    BootstrapKeys,
    Count,
    OneOf,
    PathText,
    Range,
    Share,
    Tta,
    require,
    require_shares,
)


@dataclass
class EnsembleConfig(BootstrapKeys):
    """`skinlesion ensemble`."""

    members: Annotated[Any, PATH]  # folder of a sweep, or a list of checkpoints
    expected: Annotated[int, Range(2)] | None  # number of members; null: the number that the sweep announced, or any
    out: PathText | None  # folder of the ensemble; null: `ensemble` in the sweep's folder
    tta: Tta  # test-time augmentation: which flips and turns of an image are averaged
    smallest: Count  # smallest number of members in the subsets that are searched
    largest: Count  # largest number of members in the subsets that are searched
    calibration: Annotated[str, OneOf(("temperature", "vector", "none"))]  # how the members' mean is calibrated
    sensitivities: list[float]  # sensitivities that the operating points reach on validation, 0 to 1
    alphas: list[float]  # shares of images whose prediction set may miss the diagnosis, 0 to 1; the first is in use
    conformal: Annotated[str, OneOf(("aps", "raps"))]  # score of the prediction sets
    id_pass_rate: Share | None  # share of validation images not flagged out-of-distribution; null: nothing is flagged
    bins: Annotated[int, Range(2)]  # number of bins of the calibration errors
    accelerator: str  # device for members without predictions tables: auto, cpu, gpu
    data: SourceConfig
    loader: LoaderConfig

    def __post_init__(self) -> None:
        listed = isinstance(self.members, list) and all(isinstance(member, str) for member in self.members)
        named = (isinstance(self.members, str) or listed) and len(self.members) > 0
        require(named, "members", self.members, "a sweep's folder or a list of checkpoints")
        require(self.smallest <= self.largest, "smallest", self.smallest, f"1 to {self.largest} (largest)")
        require(not listed or self.out is not None, "out", self.out, "a folder, where members is a list")
        require_shares("sensitivities", self.sensitivities, "0.9")
        require_shares("alphas", self.alphas, "0.1")
